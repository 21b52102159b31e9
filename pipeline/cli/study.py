"""The command `capsad study`."""

import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models import progress
from models.errors import UserError
from pipeline import configs
from pipeline.cli import console
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command, knob_options, quiet_option
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
@quiet_option
@json_option
def study(
    name: str,
    detectors: tuple[str, ...],
    anomalies: tuple[str, ...],
    seeds: tuple[int, ...],
    protocol: str,
    output: str,
    keep_training: bool,
    quiet: bool,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Compare detectors on the data set NAME: auROC by anomaly and seed, with intervals.

    The results are in DIR/results.csv, which has a row for each training and score. A training is
    run again only if the code of its detector, its data, its settings or the backend have changed.
    After a kill, the same command continues. Other detectors, anomalies or seeds are added. TFX is
    not needed. KERAS_BACKEND chooses the backend. `capsad tables DIR` makes tables and figures.

        capsad study mnist --detector capsnet --detector vae --anomaly 9 --anomaly 0,3,5 --epochs 2
    """
    # Set before Keras loads, because its backends print messages.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    from pipeline.study import cells
    from pipeline.study.run import run

    folder = Path(output).absolute()
    config = configs.configure(name, **overrides)
    made = cells.make_cells(config, detectors or ("capsnet",), anomalies, seeds, protocol)
    folder.mkdir(parents=True, exist_ok=True)
    display = _Cells(made, folder, shown=not (quiet or as_json))
    with console.noise_to(str(folder / "log.txt"), display):
        problems = run(made, folder, display.begin, keep_training)
    measured = _means(made, folder)
    file = folder / "results.csv"
    if as_json:
        print_json("study", results=file, scores=measured, problems=problems)
    else:
        _show(measured)
        click.echo(f"  results: {file}")
    if problems:
        raise UserError(" ".join(problems) + " The same command runs what is missing.")


class _Cells(console.Display):
    """Shows the cell that is run, and the time left for all of them.

    Args:
        cells: the cells of the study.
        output: its folder.
        shown: whether anything is shown.
    """

    def __init__(self, cells: Sequence["Cell"], output: Path, shown: bool):
        super().__init__(shown)
        self._cells, self._output = cells, output
        self._done = 0

    def begin(self, cell: "Cell", done: int) -> None:
        """Shows that `cell` is run next, after `done` others."""
        from pipeline.study import results

        self._done = done
        self._text = f"{cell.about['anomaly']}: {cell.plan.detector.name}, seed {cell.config.seed}"
        self._finished = results.read(self._output)
        names = {result["cell"] for result in self._finished}
        self._left = [cell for cell in self._cells[done:] if cell.name not in names]
        if self._bars.disable and self.shown:
            click.echo(f"  {done + 1} of {len(self._cells)}: {self._text}")
        self._show(0.0)

    def emit(self, record: logging.LogRecord) -> None:
        """Shows how far the training of a cell is."""
        told: progress.Progress | None = getattr(record, "progress", None)
        if told is not None and told.task == "training":
            self._show(told.done / told.total)

    def _show(self, part: float) -> None:
        from pipeline.study import results

        if self._bars.disable:
            return
        left = results.seconds_left(self._left, part, self._finished)
        self.move(self._text, self._done + part, len(self._cells))
        # Nothing is known before the first cell is finished.
        self._bars.update(self._bars.task_ids[0], left=None if math.isnan(left) else left)


def _means(cells: Sequence["Cell"], output: Path) -> list[dict[str, Any]]:
    """The mean auROC of each detector and score over the cells of this study."""
    import numpy as np

    from pipeline.study import results

    names = {cell.name for cell in cells}
    values: dict[tuple[str, str], list[float]] = {}
    for result in results.read(output):
        if result["cell"] in names:
            for score, measured in result["scores"].items():
                values.setdefault((result["detector"], score), []).append(measured["auroc"])
    return [
        {
            "detector": detector,
            "score": score,
            "cells": len(aurocs),
            "auroc": np.mean(aurocs),
            "standard_deviation": np.std(aurocs),
            "lowest": min(aurocs),
            "highest": max(aurocs),
        }
        for (detector, score), aurocs in values.items()
    ]


def _show(measured: Sequence[Mapping[str, Any]]) -> None:
    if not measured:
        return
    click.echo(
        f"\n  {'detector':<18}{'score':<16}{'cells':>5}  mean auROC ± standard deviation over the "
        "cells (range)"
    )
    for row in measured:
        click.echo(
            f"  {row['detector']:<18}{row['score']:<16}{row['cells']:>5}  {row['auroc']:.4f} ± "
            f"{row['standard_deviation']:.4f} ({row['lowest']:.4f} to {row['highest']:.4f})"
        )
