"""The command `capsad inspect`: what a run would make of the data, without running it."""

import collections
import sys
from typing import Any

import click
import numpy as np

from components.data.folder import UNREADABLE, printable
from components.data.protocol import SPLITS, only_tested
from components.data.sources.base import Source
from components.data.splits import check_unreadable
from models.errors import UserError
from pipeline import configs
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command, knob_options
from pipeline.knobs import knobs
from pipeline.plan import find_source, plan

_DATA = tuple(knob.name for knob in knobs(configs.PipelineConfig) if knob.section == "data")


@click.command(
    cls=Command,
    params=knob_options(
        configs.PipelineConfig,
        only=(*_DATA, "detector"),
        without=("images", "data_dir", "source_options"),
    ),
)
@click.argument("images", metavar="FOLDER")
@json_option
def inspect(images: str, as_json: bool, **given: Any) -> None:
    """Say what a run would read in FOLDER, how it would split it, and what is wrong.

    FOLDER is a folder of images, or an .npz file, as for `capsad run --images`. Give the anomaly to
    see the splits, unless it is a class that only the part `test` has. The exit code is 1 if a run
    would be refused.
    """
    config = configs.configure(images=images, **given)
    source = find_source(config)
    found = {**_files(source), **_images(source), **_run(config, source)}
    if as_json:
        print_json("inspect", **found)
    else:
        _show_files(found)
        _show_images(found)
        _show_run(found)
    if found["refused"]:
        sys.exit(1)


def _files(source: Source) -> dict[str, Any]:
    """What was read, and the images of each part and class."""
    index = source.index()
    counts = {
        part: np.bincount(of.labels, minlength=len(index.class_names)).tolist()
        for part, of in index.parts.items()
    }
    return {
        "folder": str(source.folder),
        "origin": source.origin,
        "images": sum(map(sum, counts.values())),
        "channels": index.channels,
        "files": source.table.lines(),
        "classes": {
            part: dict(zip(index.class_names, of, strict=True)) for part, of in counts.items()
        },
    }


def _images(source: Source) -> dict[str, Any]:
    """Sizes and kinds of the images, as far as they are files, and those that are identical."""
    infos, index = source.infos, source.index()
    areas = sorted((info.width * info.height, info.width, info.height) for info in infos)
    chosen = (areas[0], areas[len(areas) // 2], areas[-1]) if areas else ()
    first: dict[bytes, str] = {}
    copies = []
    for name, part in index.parts.items():
        for place, digest in enumerate(part.digests):
            own = printable(index.image_name(name, place))
            other = first.setdefault(digest.tobytes(), own)
            if other != own:
                copies.append((own, other))
    return {
        "sizes": [[width, height] for _, width, height in chosen],
        "formats": dict(collections.Counter(info.format for info in infos).most_common()),
        "pixels": dict(collections.Counter(info.mode for info in infos).most_common()),
        "identical": copies,
    }


def _run(config: configs.PipelineConfig, source: Source) -> dict[str, Any]:
    """The run, unless its anomaly is still to be chosen, and why it would be refused."""
    found = config.data.anomaly or only_tested(source.index())
    try:
        check_unreadable(source.table.names.get(UNREADABLE, []), config.data.max_unreadable)
        # Of a single class, none can be chosen.
        planned = plan(config, source) if found or len(source.class_names) == 1 else None
    except UserError as error:
        return {"run": None, "warnings": source.warnings, "refused": str(error)}
    if planned is None:
        return {"run": None, "warnings": source.warnings, "refused": None}
    run = {
        "anomaly": planned.classes.anomaly_names,
        "detector": planned.detector.name,
        "image_size": planned.image_size,
        "splits": {split: planned.counts[split] for split in SPLITS},
    }
    return {"run": run, "warnings": planned.warnings, "refused": None}


def _show_files(found: dict[str, Any]) -> None:
    colour = "grey" if found["channels"] == 1 else "colour"
    click.echo(f"{found['folder']}: {found['origin']}, {found['images']} {colour} images")
    for line in found["files"]:
        click.echo(f"  {line}")
    parts = found["classes"]
    names = list(next(iter(parts.values())))
    width = max(map(len, names))
    click.echo(f"\n  {'class':<{width}}" + "".join(f"{part:>10}" for part in parts))
    for name in names:
        click.echo(f"  {name:<{width}}" + "".join(f"{of[name]:>10}" for of in parts.values()))


def _show_images(found: dict[str, Any]) -> None:
    click.echo()
    if found["sizes"]:
        smallest, middle, largest = ("x".join(map(str, size)) for size in found["sizes"])
        click.echo(
            f"  sizes    {smallest} to {largest} pixels, the median {middle} (width x height)"
        )
        for title in ("formats", "pixels"):
            listed = ", ".join(f"{count} {name}" for name, count in found[title].items())
            click.echo(f"  {title:<9}{listed}")
    if copies := found["identical"]:
        own, other = copies[0]
        click.echo(
            f"  {len(copies)} images are identical to another; the first is {own}, the same as "
            f"{other}"
        )


def _show_run(found: dict[str, Any]) -> None:
    run = found["run"]
    if run:
        size = "x".join(map(str, run["image_size"]))
        click.echo(f"\nA run with the anomaly {', '.join(run['anomaly'])}:")
        click.echo(f"  detector {run['detector']}, images resized to {size}")
        for split, classes in run["splits"].items():
            listed = ", ".join(f"{name} {count}" for name, count in classes.items())
            click.echo(f"  {split:<12}{sum(classes.values()):>8}  {listed}")
    elif not found["refused"]:
        click.echo("\nGive a class by --anomaly to see the splits of a run that holds it out.")
    for warning in found["warnings"]:
        click.echo(f"\nWarning: {warning}")
    if found["refused"]:
        click.echo(f"\nA run would be refused: {found['refused']}")
