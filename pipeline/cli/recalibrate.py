"""The command `capsad recalibrate`."""

import os
import warnings

import click

from components.data.folder import Table, find_images
from models.errors import UserError
from pipeline.cli import console
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command, knob_options, pixel_limit
from pipeline.configs import PipelineConfig
from pipeline.imports import large_imports


@click.command(cls=Command, params=knob_options(PipelineConfig, only=("max_pixels",)))
@click.argument("model")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@json_option
def recalibrate(model: str, images: tuple[str, ...], max_pixels: int | None, as_json: bool) -> None:
    """Make a new version of a pushed model: the same network, calibrated on other images.

    MODEL is a run's output folder, its `serving` folder, or one version's folder. IMAGE... are
    files or folders of normal images that are like those of today and were not trained on. The new
    version appears beside the old one, and TensorFlow Serving takes it by itself. Nothing else of
    the model changes, so this does not help if the network cannot tell anomalies any more.
    """
    for path in images:
        if not os.path.exists(path):
            raise UserError(f"{path} does not exist: give images, or folders of them.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    table = Table()
    with console.noise_to(os.devnull):
        with large_imports():
            from components.serving.recalibration import recalibrate as make_version

        made = make_version(model, find_images(images, table), table, pixel_limit(max_pixels))
    for unreadable in made.unreadable:
        click.echo(f"{unreadable.name}: {unreadable.reason}", err=True)
    for line in table.lines():
        click.echo(line, err=True)
    if as_json:
        print_json(
            "recalibrate",
            model=os.path.abspath(made.folder),
            calibration_images=made.images,
            flagged_before=made.flagged_before,
            unreadable={unreadable.name: unreadable.reason for unreadable in made.unreadable},
            left_out=table.lines(),
        )
        return
    click.echo(
        f"  calibrated on {made.images} images, of which the former version flagged "
        f"{made.flagged_before:.1%}: alpha must be above {1 / (made.images + 1):.2g}\n"
        f"  model:   {os.path.relpath(made.folder)}"
    )
