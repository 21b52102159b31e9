"""The command `capsad datasets`."""

import os
import sys
from typing import Any

import click
import numpy as np

from components.data import sources
from models.errors import UserError
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command


@click.command(cls=Command)
@click.option("--data-dir", metavar="DIR", help="Folder to look in first.")
@json_option
def datasets(data_dir: str | None, as_json: bool) -> None:
    """List the data sets: their folders, numbers of images, licences and how to get them.

    The exit code is 1 if the files of one are broken.
    """
    if data_dir is not None:
        os.environ[sources.DATA_DIR_VARIABLE] = data_dir
    found = [_describe(name) for name in sources.names()]
    if as_json:
        print_json("datasets", datasets=found)
    else:
        _show(found)
    if any(described["broken"] for described in found):
        sys.exit(1)


def _show(found: list[dict[str, Any]]) -> None:
    for described in found:
        click.secho(described["name"], bold=True, nl=False)
        click.echo(f"  {described['title']}")
        if described["broken"]:
            click.echo(f"  broken:   {described['broken']}")
        elif described["folder"]:
            click.echo(f"  found:    {described['folder']} ({described['origin']})")
            for part, counts in described["images"].items():
                listed = ", ".join(f"{name} {count}" for name, count in counts.items())
                click.echo(f"  {part + ':':<10}{listed}")
        else:
            click.echo(f"  missing:  {described['missing']}")
            click.echo(f"  get it:   {described['get_it']}")
        click.echo(f"  licence:  {described['licence']}")


def _describe(name: str) -> dict[str, Any]:
    """A data set: name of a field -> its value; `folder` is `None` if it is missing."""
    source_class = sources.describe(name)
    found = broken = None
    images = {}
    try:
        found = sources.find(name)
        if found:
            for part, labels in found.labels().items():
                counts = np.bincount(labels, minlength=len(found.class_names))
                images[part] = dict(zip(found.class_names, counts.tolist(), strict=True))
    except UserError as error:
        broken = str(error)
    return {
        "name": name,
        "title": source_class.title,
        "folder": found.folder if found else None,
        "origin": found.origin if found else None,
        "images": images,
        "missing": None if found or broken else "not found",
        "broken": broken,
        "get_it": source_class.how_to_get,
        "licence": source_class.licence,
    }
