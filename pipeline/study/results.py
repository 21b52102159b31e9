"""The results of all studies in one folder: `results.csv`, a row for each training and score."""

import contextlib
import csv
import fcntl
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.files import spreadsheet_safe, write_whole
from pipeline.study.cells import Cell

Result = dict[str, Any]
"""A training: the values of the columns `_TRAINING`, and under `scores` those of `_SCORE`."""

# False positive rates at which `roc` has the true positive rates.
FALSE_RATES = (
    *(0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3),
    *(0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
_TEXTS = ("data_set", "protocol", "anomaly", "detector", "backend", "cell", "code", "machine")
_BUDGET = ("data_set", "protocol", "detector", "epochs", "limit_per_class")
_TRAINING = (
    *("data_set", "protocol", "anomaly", "detector", "seed", "epochs", "limit_per_class"),
    *("data", "settings", "images", "tested", "accuracy"),
    *("false_alarms_at_0.05", "false_alarms_at_0.01"),
    *("seconds", "train_images_per_s", "score_images_per_s"),
    *("backend", "cell", "code", "machine"),
)
_SCORE = ("auroc", "auroc_low", "auroc_high", "aupr", "fpr_at_95_tpr", "roc")
_TABLE = "results.csv"


def read(output: Path) -> list[Result]:
    """Reads all results in the folder `output`, in the order of their cells.

    Raises:
        UserError: if the file is broken, or has two results of one training, as files of version
            0.2.0 may have.
    """
    path = output / _TABLE
    if not path.exists():
        return []
    found: dict[str, Result] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                row = {"data": "null"} | row  # Version 0.2.0 did not record it.
                values = {name: _value(name, row[name]) for name in _TRAINING}
                result = found.setdefault(row["cell"], values | {"scores": {}})
                result["scores"][row["score"]] = {name: _value(name, row[name]) for name in _SCORE}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path} is broken ({type(error).__name__}: {error}): put back a whole copy, or move "
            "it away to start afresh."
        ) from error
    trainings: dict[tuple, str] = {}
    for cell, result in found.items():
        other = trainings.setdefault(_training(result), cell)
        if other != cell:
            raise UserError(
                f"{path} has two results of {result['detector']} on {result['data_set']}, anomaly "
                f"{result['anomaly']}, seed {result['seed']}, made with different options: delete "
                f"the rows of cell {other} or {cell}."
            )
    return [found[name] for name in sorted(found)]


def versions(results: Iterable[Result], score: str) -> list[str]:
    """Names under which results have a score: its own first, then those of earlier versions.

    When the formula of a score changes, finished results keep the old one as, for example,
    `conformity of 0.2.0`.
    """
    names = {name for result in results for name in result["scores"]}
    found = [name for name in names if name.partition(" of ")[0] == score]
    return sorted(found, key=lambda name: (name != score, name))


def check_alike(output: Path, cells: Iterable[Cell]) -> None:
    """Checks that results of `cells` may stand in one table with those that are there.

    Raises:
        UserError: if there are results of the same detector and budget with other settings or
            other options of the data.
    """
    there = {_budget(result): result for result in read(output)}
    for cell in cells:
        before = there.get(_budget(cell.about), cell.about)
        old, new = _options(before), _options(cell.about) or {}
        if old == new:
            continue
        if old is None:
            told = "options that were not recorded"
        else:
            names = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
            told = f"{_words(old, names)}, not {_words(new, names)}"
        raise UserError(
            f"{output / _TABLE} has results of {before['detector']} on {before['data_set']} with "
            f"{told}: name another folder, so that no table mixes them.",
            "output",
        )


def _budget(result: Result) -> tuple:
    return tuple(result[name] for name in _BUDGET)


def _options(result: Result) -> dict[str, Any] | None:
    """Options of the data, and settings but the epochs, which are a part of the budget."""
    data, settings = result["data"], result["settings"]
    if data is None or settings is None:  # as in early versions
        return None
    return data | {name: value for name, value in settings.items() if name != "epochs"}


def _training(result: Result) -> tuple:
    return *_budget(result), result["anomaly"], result["seed"]


def _words(options: dict[str, Any], names: Iterable[str]) -> str:
    told = {name: json.dumps(options[name]) if name in options else "its default" for name in names}
    return ", ".join(f"{name} = {value}" for name, value in told.items())


def add(output: Path, result: Result) -> None:
    """Adds a result. One of the same training, by other code or on another backend, is replaced."""
    with _locked(output):
        others = []
        for other in read(output):
            if _training(other) != _training(result):
                others.append(other)
            elif other["cell"] != result["cell"]:
                (output / "cells" / f"{other['cell']}.npz").unlink(missing_ok=True)
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*_TRAINING, "score", *_SCORE))
        for one in sorted([*others, result], key=lambda one: one["cell"]):
            for score, measured in one["scores"].items():
                writer.writerow(
                    (
                        *(_cell(name, one[name]) for name in _TRAINING),
                        score,
                        *(_cell(name, measured[name]) for name in _SCORE),
                    )
                )
        write_whole(output / _TABLE, text.getvalue())


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Lets no other study change the table at the same time."""
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cell(name: str, value: Any) -> str:
    return spreadsheet_safe(value) if name in _TEXTS else json.dumps(value, sort_keys=True)


def _value(name: str, text: str) -> Any:
    if name not in _TEXTS:
        return json.loads(text)
    unsafe = text.removeprefix("'")
    return unsafe if spreadsheet_safe(unsafe) == text else text


def seconds_left(cells: Sequence[Cell], part: float, finished: Sequence[Result]) -> float:
    """Estimates the seconds that `cells` still take.

    The estimate is based on the seconds for each image in finished cells of the same detector. If
    there are none, it is based on all finished cells.

    Args:
        cells: cells that are not finished.
        part: part of the first cell that is done, in [0, 1].
        finished: finished cells, as `read` gives them.

    Returns:
        The number of seconds, or NaN if no cell is finished.
    """

    def rate(results: Sequence[Result]) -> float:
        passes = sum(result["epochs"] * result["images"] for result in results)
        return sum(result["seconds"] for result in results) / passes if passes else math.nan

    rates = {
        cell.plan.detector.name: rate(
            [r for r in finished if r["detector"] == cell.plan.detector.name] or finished
        )
        for cell in cells
    }
    expected = [cell.passes * rates[cell.plan.detector.name] for cell in cells]
    return sum(expected) - part * expected[0] if expected else 0.0
