"""Reads the results of the studies in one folder, and writes them into `results.csv`."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.files import spreadsheet_safe, write_whole
from pipeline.study.cells import Cell

_KEYS = ("data_set", "protocol", "anomaly", "detector", "seed")


def read(output: Path) -> list[dict[str, Any]]:
    """Reads the finished cells in `output`.

    Returns:
        The `result.json` of each cell, and its name under the key `cell`.

    Raises:
        UserError: if a file is broken.
    """
    found = []
    for path in sorted((output / "cells").glob("[!.]*/result.json")):
        try:
            found.append({"cell": path.parent.name, **json.loads(path.read_text())})
        except ValueError as error:
            raise UserError(f"{path} is broken ({error}): delete its folder.") from error
    return found


def write_table(output: Path) -> None:
    """Writes `results.csv`, which has a row for each finished cell and score."""
    table = []
    for result in read(output):
        values = {key: value for key, value in result.items() if not isinstance(value, dict)}
        for score, measured in result["scores"].items():
            table.append({key: values[key] for key in _KEYS} | {"score": score} | measured | values)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, table[0].keys())
    writer.writeheader()
    writer.writerows({name: spreadsheet_safe(cell) for name, cell in row.items()} for row in table)
    write_whole(output / "results.csv", text.getvalue())


def seconds_left(cells: Sequence[Cell], part: float, finished: Sequence[dict[str, Any]]) -> float:
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

    def rate(results: Sequence[dict[str, Any]]) -> float:
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
