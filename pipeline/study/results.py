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
_TRAINING = (
    *("data_set", "protocol", "anomaly", "detector", "seed", "epochs", "limit_per_class"),
    *("settings", "images", "tested", "accuracy", "false_alarms_at_0.05", "false_alarms_at_0.01"),
    *("seconds", "train_images_per_s", "score_images_per_s"),
    *("backend", "cell", "code", "machine"),
)
_SCORE = ("auroc", "auroc_low", "auroc_high", "aupr", "fpr_at_95_tpr", "roc")
_TABLE = "results.csv"


def read(output: Path) -> list[Result]:
    """Reads all results in the folder `output`, in the order of their cells.

    Raises:
        UserError: if the file is broken.
    """
    path = output / _TABLE
    if not path.exists():
        return []
    found: dict[str, Result] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                values = {name: _value(name, row[name]) for name in _TRAINING}
                result = found.setdefault(row["cell"], values | {"scores": {}})
                result["scores"][row["score"]] = {name: _value(name, row[name]) for name in _SCORE}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path} is broken ({type(error).__name__}: {error}): put back a whole copy, or move "
            "it away to start afresh."
        ) from error
    return [found[name] for name in sorted(found)]


def versions(results: Iterable[Result], score: str) -> list[str]:
    """Names under which results have a score: its own first, then those of earlier versions.

    When the formula of a score changes, finished results keep the old one as, for example,
    `conformity of 0.2.0`.
    """
    names = {name for result in results for name in result["scores"]}
    found = [name for name in names if name.partition(" of ")[0] == score]
    return sorted(found, key=lambda name: (name != score, name))


def add(output: Path, result: Result) -> None:
    """Adds a result. One of the same cell, of other code, is replaced."""
    with _locked(output):
        others = [other for other in read(output) if other["cell"] != result["cell"]]
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
