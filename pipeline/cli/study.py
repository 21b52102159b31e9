"""The command `capsad study`."""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import UserError
from pipeline import configs
from pipeline.cli import console
from pipeline.cli.options import Command, knob_options
from pipeline.configs import PipelineConfig
from pipeline.parameters import OutputFolder

if TYPE_CHECKING:
    from pipeline.study.cells import Cell

_KNOBS = ("epochs", "batch_size", "limit_per_class", "image_size", "data_dir", "source_options")


@click.command(cls=Command, goes_on=True, params=knob_options(PipelineConfig, only=_KNOBS))
@click.argument("name")
@click.option(
    "--detector",
    "detectors",
    metavar="NAME",
    multiple=True,
    help="Name of a detector; may be repeated.  [default: capsnet]",
)
@click.option(
    "--anomaly",
    "anomalies",
    metavar="A,B",
    multiple=True,
    help="Classes held out together; may be repeated.  [default: each class in turn]",
)
@click.option(
    "--seed",
    "seeds",
    type=click.IntRange(min=0),
    multiple=True,
    default=(0,),
    help="Seed of splits and training; may be repeated.  [default: 0]",
)
@click.option(
    "--protocol",
    type=click.Choice(("hold-out", "open-set-6-4")),
    default="hold-out",
    show_default=True,
    help="open-set-6-4: five fixed splits into six known and four unknown classes, tested on the "
    "whole test part.",
)
@click.option(
    "--output",
    type=OutputFolder(),
    metavar="DIR",
    default="runs/study",
    show_default=True,
    help="Folder for results, which studies may share.",
)
@click.option("--keep-training", is_flag=True, help="Keep the state of each training.")
def study(
    name: str,
    detectors: tuple[str, ...],
    anomalies: tuple[str, ...],
    seeds: tuple[int, ...],
    protocol: str,
    output: str,
    keep_training: bool,
    **overrides: Any,
) -> None:
    """Compare detectors on the data set NAME: auROC by anomaly and seed, with intervals.

    The results are in DIR/results.csv, which has a row for each training and score. A training is
    run again only if the code of its detector has changed. After a kill, the same command
    continues. Other detectors, anomalies or seeds are added. TFX is not needed. KERAS_BACKEND
    chooses the backend. `capsad tables DIR` makes tables and figures.

        capsad study mnist --detector capsnet --detector vae --anomaly 9 --anomaly 0,3,5 --epochs 2
    """
    # Set before Keras loads, because its backends print messages.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    from pipeline.study import cells

    folder = Path(output).absolute()
    config = configs.configure(name, **overrides)
    made = cells.make_cells(config, detectors or ("capsnet",), anomalies, seeds, protocol)
    folder.mkdir(parents=True, exist_ok=True)
    problems = _run(made, folder, keep_training)
    _show(made, folder)
    click.echo(f"  results: {folder / 'results.csv'}")
    if problems:
        raise UserError(" ".join(problems) + " The same command runs what is missing.")


def _run(cells: Sequence["Cell"], output: Path, keep_training: bool) -> list[str]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from pipeline.study import results
    from pipeline.study.run import run

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with console.noise_to(str(output / "log.txt")), Progress(*columns) as display:
        task = display.add_task("", total=len(cells), left="")
        finished: list[dict[str, Any]] = []

        def progress(cell: "Cell", done: int, part: float) -> None:
            nonlocal finished
            if part == 0:
                finished = results.read(output)
            names = {result["cell"] for result in finished}
            remaining = [c for c in cells[done:] if c.name not in names]
            display.update(
                task,
                completed=done + part,
                description=f"{cell.anomaly}: {cell.plan.detector.name}, seed {cell.config.seed}",
                left=_duration(results.seconds_left(remaining, part, finished)),
            )

        problems = run(cells, output, progress, keep_training)
        display.update(task, completed=len(cells), description="", left="")
    return problems


def _duration(seconds: float) -> str:
    if math.isnan(seconds):  # Nothing is known before the first cell is finished.
        return ""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min left" if minutes >= 60 else f"{minutes} min left"


def _show(cells: Sequence["Cell"], output: Path) -> None:
    """Prints the mean auROC of each detector and score over the cells of this study."""
    import numpy as np

    from pipeline.study import results

    names = {cell.name for cell in cells}
    values: dict[tuple[str, str], list[float]] = {}
    for result in results.read(output):
        if result["cell"] in names:
            for score, measured in result["scores"].items():
                values.setdefault((result["detector"], score), []).append(measured["auroc"])
    if not values:
        return
    click.echo(
        f"\n  {'detector':<16}{'score':<16}{'cells':>5}  mean auROC ± standard deviation over the "
        "cells (range)"
    )
    for (detector, score), aurocs in values.items():
        click.echo(
            f"  {detector:<16}{score:<16}{len(aurocs):>5}  {np.mean(aurocs):.4f} ± "
            f"{np.std(aurocs):.4f} ({min(aurocs):.4f} to {max(aurocs):.4f})"
        )
