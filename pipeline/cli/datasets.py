"""The command `capsad datasets`."""

import os

import click
import numpy as np

from components.data import sources
from models.errors import UserError
from pipeline.cli.options import Command


@click.command(cls=Command)
@click.option("--data-dir", metavar="DIR", help="Folder to look in first.")
def datasets(data_dir: str | None) -> None:
    """List the data sets: their folders, numbers of images, licences and how to get them."""
    if data_dir is not None:
        os.environ[sources.DATA_DIR_VARIABLE] = data_dir
    for name in sources.names():
        source_class = sources.describe(name)
        click.secho(f"{name}", bold=True, nl=False)
        click.echo(f"  {source_class.title}")
        found, why = None, "not found"
        try:
            found = sources.find(name)
        except UserError as error:
            why = str(error)
        if found:
            click.echo(f"  found:    {found.folder} ({found.origin})")
            for part, labels in found.labels().items():
                counts = np.bincount(labels, minlength=len(found.class_names))
                listed = zip(found.class_names, counts, strict=True)
                click.echo(f"  {part + ':':<10}" + ", ".join(f"{n} {c}" for n, c in listed))
        else:
            click.echo(f"  missing:  {why}")
            click.echo(f"  get it:   {source_class.how_to_get}")
        click.echo(f"  licence:  {source_class.licence}")
