"""The command `capsad inspect`: what a run would make of the data, without running it."""

import collections
import sys
from typing import Any

import click
import numpy as np

from components.data.folder import printable
from components.data.formats import Info
from components.data.index import Index
from components.data.protocol import SPLITS
from components.data.sources.base import Source
from models.errors import UserError
from pipeline import configs
from pipeline.cli.options import Command, knob_options
from pipeline.knobs import knobs
from pipeline.plan import find_source, plan

_DATA = tuple(knob.name for knob in knobs(configs.PipelineConfig) if knob.section == "data")


@click.command(
    cls=Command,
    params=[
        parameter
        for parameter in knob_options(configs.PipelineConfig, only=(*_DATA, "detector"))
        if parameter.name != "images"
    ],
)
@click.argument("images", metavar="FOLDER")
def inspect(images: str, **given: Any) -> None:
    """Say what a run would read in FOLDER, how it would split it, and what is wrong.

    FOLDER is a folder of images, or an .npz file, as for `capsad run --images`. Give the anomaly to
    see the splits. The exit code is 1 if a run would be refused.
    """
    config = configs.configure(images=images, **given)
    source = find_source(config)
    index = source.index()
    _tell_files(source, index)
    _tell_images(source.infos, index)
    wrong, warnings = None, source.warnings
    try:
        planned = plan(config, source) if config.data.anomaly else None
    except UserError as error:
        wrong, planned = error, None
    if planned is not None:
        size = "x".join(map(str, planned.image_size))
        anomaly = ", ".join(planned.classes.anomaly_names)
        click.echo(f"\nA run with the anomaly {anomaly}:")
        click.echo(f"  detector {planned.detector.name}, images resized to {size}")
        for split in SPLITS:
            classes = planned.counts[split]
            listed = ", ".join(f"{name} {count}" for name, count in classes.items())
            click.echo(f"  {split:<12}{sum(classes.values()):>8}  {listed}")
        warnings = planned.warnings
    elif wrong is None:
        click.echo("\nGive a class by --anomaly to see the splits of a run that holds it out.")
    for warning in warnings:
        click.echo(f"\nWarning: {warning}")
    if wrong is not None:
        click.echo(f"\nA run would be refused: {wrong}")
        sys.exit(1)


def _tell_files(source: Source, index: Index) -> None:
    """Prints the table of files and the classes."""
    total = sum(len(part.labels) for part in index.parts.values())
    colour = "grey" if index.channels == 1 else "colour"
    click.echo(f"{source.folder}: {source.origin}, {total} {colour} images")
    for line in source.table.lines():
        click.echo(f"  {line}")
    width = max(map(len, index.class_names))
    click.echo(f"\n  {'class':<{width}}" + "".join(f"{part:>10}" for part in index.parts))
    counts = [
        np.bincount(part.labels, minlength=len(index.class_names)) for part in index.parts.values()
    ]
    for label, name in enumerate(index.class_names):
        click.echo(f"  {name:<{width}}" + "".join(f"{count[label]:>10}" for count in counts))


def _tell_images(infos: list[Info], index: Index) -> None:
    """Prints sizes and kinds of the images, and how many are identical."""
    click.echo()
    if infos:
        areas = sorted((info.width * info.height, info.width, info.height) for info in infos)
        (_, *smallest), (_, *middle), (_, *largest) = areas[0], areas[len(areas) // 2], areas[-1]
        click.echo(
            f"  sizes    {'x'.join(map(str, smallest))} to {'x'.join(map(str, largest))} pixels, "
            f"the median {'x'.join(map(str, middle))} (width x height)"
        )
        for title, field in (("formats", "format"), ("pixels", "mode")):
            found = collections.Counter(getattr(info, field) for info in infos)
            listed = ", ".join(f"{count} {name}" for name, count in found.most_common())
            click.echo(f"  {title:<9}{listed}")
    first: dict[bytes, str] = {}
    copies = []
    for name, part in index.parts.items():
        for place, digest in enumerate(part.digests):
            own = printable(index.image_name(name, place))
            other = first.setdefault(digest.tobytes(), own)
            if other != own:
                copies.append((own, other))
    if copies:
        click.echo(
            f"  {len(copies)} images are identical to another; the first is {copies[0][0]}, the "
            f"same as {copies[0][1]}"
        )
