"""The command `capsad watch`."""

import dataclasses
import os
import sys
from typing import TYPE_CHECKING

import click

from models.files import write_whole
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command, alpha_option
from pipeline.parameters import FiniteRange, OutputFile

if TYPE_CHECKING:
    from components.evaluation.watch import Watch

_ALARM = 1  # exit code


@click.command(cls=Command)
@click.argument("scores", nargs=-1, required=True)
@alpha_option
@click.option(
    "--level",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Largest probability that an alarm is ever raised although nothing has changed.",
)
@click.option(
    "--figure",
    type=OutputFile(),
    metavar="FILE",
    help="PNG of the evidence over the images.",
)
@json_option
def watch(
    scores: tuple[str, ...], alpha: float, level: float, figure: str | None, as_json: bool
) -> None:
    """Find out whether scored images are still like those of the calibration.

    SCORES are files in the order of time: CSV or JSON lines of `capsad score`, output folders of
    `capsad score --beam`, or TFRecords of TensorFlow Serving's log. If the images are still like
    those of the calibration, their p-values are uniform; a conformal test martingale bets against
    that. Exit code 1: they have changed, and the rate of false alarms is no longer promised.
    `capsad recalibrate` makes a new version of the model.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from components.evaluation import watch as evaluation
    from components.serving.served import read_served

    served = read_served(scores)
    found, capital = evaluation.watch(served, alpha, level)
    if figure:
        from components.evaluation.report import figures

        since = found.since.number if found.since else None
        write_whole(figure, figures.png(figures.evidence_figure(capital, found.needed, since)))
    if as_json:
        print_json("watch", **dataclasses.asdict(found))
    else:
        _show(found, level)
    if found.alarm:
        sys.exit(_ALARM)


def _show(found: "Watch", level: float) -> None:
    click.echo(
        f"  {found.images} images, compared with {found.calibration_images} calibration images\n"
        f"  flagged: {found.flagged:.1%} (at most {found.alpha:.1%} of normal images, on average)\n"
        f"  evidence of a change: 10^{found.evidence:.1f} to 1 (alarm from 10^{found.needed:.1f})"
    )
    if found.alarm and found.since:
        click.echo(
            f"  ALARM: since about image {found.since.number} ({found.since.name}) the images are "
            "not like those of the calibration, so the rate of false alarms is no longer promised."
            f"\n  The alarm was raised at image {found.alarm.number} ({found.alarm.name})."
        )
    else:
        click.echo(f"  No alarm at level {level:g}: nothing speaks against the calibration.")
