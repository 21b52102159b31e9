"""The options that describe a run, shared by the commands that start one."""

import json
from collections.abc import Callable

import click

from models.errors import UserError
from pipeline import configs


def _setting(context, parameter, values):
    settings = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator:
            raise click.BadParameter(f"'{value}' is not of the form NAME=VALUE.")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text
    return settings


_positive = click.IntRange(min=1)

beam_args = click.option(
    "--beam-arg",
    "beam_args",
    metavar="--NAME=VALUE",
    multiple=True,
    help="An argument of Apache Beam; may be repeated.  [--runner=FnApiRunner: in this process]",
)

_OPTIONS = (
    click.argument("name", required=False),
    click.option(
        "--images", metavar="DIR", help="Folder of class folders of images, or an .npz file."
    ),
    click.option("--anomaly", metavar="A,B", help="Classes held out, by name or index."),
    click.option("--detector", metavar="NAME", help="See `capsad detectors`.  [default: capsnet]"),
    click.option("--epochs", type=_positive, help="Passes over the training images."),
    click.option(
        "--limit-per-class", type=_positive, help="Images kept of each class in each part."
    ),
    click.option(
        "--image-size", type=_positive, help="Height and width that images are resized to."
    ),
    click.option("--seed", type=click.IntRange(min=0), help="Seed of every draw.  [default: 0]"),
    click.option(
        "--set",
        "settings",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_setting,
        help="A setting of the detector; may be repeated.",
    ),
    click.option(
        "--strategy",
        type=click.Choice(["auto", "one_device"]),
        help="Train on every GPU and every worker of TF_CONFIG, or on one device.  [default: auto]",
    ),
    click.option(
        "--min-auroc", type=click.FloatRange(0, 1), help="Below it a model is not pushed.  [0.6]"
    ),
    click.option(
        "--max-unreadable",
        type=click.IntRange(min=0),
        help="Images that may be skipped because they cannot be decoded.  [0]",
    ),
    beam_args,
)


def of_a_run(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the argument NAME and the options; `configure` takes what they give."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def configure(name: str | None, images: str | None, **overrides: object) -> configs.PipelineConfig:
    """The pipeline that the command line describes, with the CAPSAD_* variables under it.

    Args:
        name: of the data set; `None`: digits, or images where those are given.
        images: folder of class folders or `.npz` file.
        **overrides: as for `configs.override`.

    Raises:
        UserError: if both a data set and images are given, or something is unknown.
    """
    if images is not None:
        if name not in (None, "images", "capsad_images"):
            raise UserError(f"Give either a data set ('{name}') or --images, not both.")
        name, overrides["data_dir"] = "images", images
    config = configs.from_environment(name or "capsad_digits")
    return configs.override(config, **overrides)
