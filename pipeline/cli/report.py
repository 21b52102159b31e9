"""The command `capsad report`, and the printing of a run's results for other commands."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import click

from pipeline import results
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command


@click.command(cls=Command)
@click.argument("run", metavar="RUN")
@json_option
def report(run: str, as_json: bool) -> None:
    """Show the results of RUN, the output folder of a run, and the path of its report."""
    result = results.read(os.path.abspath(run))
    if as_json:
        print_json("report", **dataclasses.asdict(result))
    else:
        show(result, "report")


def show(result: results.Results, heading: str, told: Sequence[str] = ()) -> None:
    """Prints the auROC of each score, the verdict, and the paths of report, model and scores.

    Args:
        result: results of the run.
        heading: text that is printed after the verdict.
        told: sentences about the data that were printed before.
    """
    click.echo(f"\n  {'score':<16}auROC")
    for name, value in result.auroc.items():
        click.echo(f"  {name:<16}{value:.4f}")
    if result.normal_classes > 1:
        click.echo(f"  accuracy on normal classes {result.accuracy:.4f}")
    if result.pixels:
        click.echo(
            f"  pixels of {result.pixels['images']:.0f} images with masks: auROC "
            f"{result.pixels['auroc']:.4f}, PRO {result.pixels['pro']:.4f}"
        )
    least = 1 / (result.calibration_images + 1)
    click.echo(
        f"  calibrated on {result.calibration_images} images: alpha must be above {least:.2g}"
    )
    click.echo()
    for note in result.data:
        if note not in told:
            click.echo(f"  {note}")
    click.echo(f"  {result.verdict['headline']} ({heading})")
    if result.blessed:
        click.echo(f"  {result.verdict['reason']}")
    for check in result.verdict["checks"]:
        if not check["passed"]:
            click.echo(f"    {check['condition']}: {check['outcome']}")
    click.echo(f"  report:  {_relative(result.report)}")
    click.echo(f"  model:   {_model(result.pushed)}")
    if result.scores:
        click.echo(f"  scores:  {_relative(result.scores)}")


def _model(pushed: str | None) -> str:
    if pushed is None:
        return "not pushed"
    return _relative(pushed) + ("" if os.path.isdir(pushed) else ", which is gone")


def _relative(path: str) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return path
