"""The command `capsad compare`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from models.errors import UserError
from models.files import write_whole
from pipeline import results
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command
from pipeline.parameters import OutputFile

if TYPE_CHECKING:
    from components.evaluation.report.compare import Run


@click.command(cls=Command)
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option(
    "--output",
    type=OutputFile(),
    metavar="FILE",
    default="comparison.html",
    show_default=True,
    help="Page to write.",
)
@json_option
def compare(runs: tuple[str, ...], output: str, as_json: bool) -> None:
    """Compare runs: their scores and verdicts, and the settings that differ.

    RUN is the output folder of a run. Runs can be compared only where they have the same anomaly
    and the same test images; else this is said.
    """
    if len(runs) < 2:
        raise UserError("Give two runs or more: capsad compare RUN RUN...")
    found = {run: results.read(os.path.abspath(run)) for run in runs}
    if len(found) < len(runs):
        raise UserError("Give each run once.")
    # Matplotlib takes a moment.
    from components.evaluation.report import compare as comparison

    read = [comparison.read(name, Path(result.report).parent) for name, result in found.items()]
    write_whole(output, comparison.html(read))
    if as_json:
        print_json(
            "compare",
            page=os.path.abspath(output),
            notes=comparison.notes(read),
            runs=[{"run": run.name, **_fields(run)} for run in read],
            settings=comparison.differing(read),
        )
    else:
        _show(read)
        click.echo(f"\n  page: {output}")


def _fields(run: "Run") -> dict[str, object]:
    return {
        "blessed": run.summary["verdict"]["blessed"],
        "headline": run.headline,
        "measures": run.summary["measures"],
        "accuracy": run.summary["accuracy"],
        "seconds": run.summary["seconds"],
    }


def _show(runs: Sequence["Run"]) -> None:
    from components.evaluation.report import compare as comparison

    for note in comparison.notes(runs):
        click.echo(f"Warning: {note}", err=True)
    for place, run in enumerate(runs, start=1):
        click.echo(f"  ({place}) {run.name}: {run.headline}")
    numbers = "".join(f"{f'({place})':>28}" for place in range(1, len(runs) + 1))
    click.echo(f"\n  {'auROC (95 % interval)':<24}{numbers}")
    for name, cells in comparison.scores(runs).items():
        texts = (
            f"{cell['auroc']:.4f} ({cell['auroc_low']:.4f} to {cell['auroc_high']:.4f})"
            if cell
            else "–"
            for cell in cells
        )
        click.echo(f"  {name:<24}" + "".join(f"{text:>28}" for text in texts))
    settings = comparison.differing(runs)
    click.echo("\n  Settings that differ:" if settings else "\n  The settings are the same.")
    for name, values in settings.items():
        click.echo(f"    {name}: {' | '.join(values)}")
