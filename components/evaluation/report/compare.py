"""Compares runs by their reports."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.report import figures, templates
from models import metrics
from models.errors import UserError
from models.score_names import ANOMALY_SCORE

_OTHERS = {"accuracy": "accuracy on normal classes", "seconds": "seconds of training"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a report says of a run."""

    name: str
    summary: dict[str, Any]
    """The content of `summary.json`."""
    digests: Counter[str]
    """Digests of the test images; empty where an earlier version did not write them."""
    is_anomaly: np.ndarray
    """bool (N,)"""
    anomaly_score: np.ndarray
    """float (N,), in [0, 1]."""

    @property
    def headline(self) -> str:
        """The verdict in short."""
        return str(self.summary["verdict"]["headline"])


def read(name: str, report: Path) -> Run:
    """Reads what the report in a folder says.

    Args:
        name: name that the run is to have.
        report: folder of the report.

    Raises:
        UserError: if the report is damaged, or of an earlier version.
    """
    try:
        summary = json.loads((report / "summary.json").read_text())
        for field in ("measures", "settings", "seconds", "anomaly_classes", "verdict"):
            summary[field]
        with (report / "tables" / "images.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return Run(
            name=name,
            summary=summary,
            digests=Counter(row["digest"] for row in rows if "digest" in row),
            is_anomaly=np.array([row["is_anomaly"] == "1" for row in rows]),
            anomaly_score=np.array([float(row[ANOMALY_SCORE]) for row in rows]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"The report in {report} is damaged, or of an earlier version of capsad: give its "
            "`capsad run` command again."
        ) from error


def differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Name of each setting or version that differs -> its values, "–" where there is none."""
    names = dict.fromkeys(name for run in runs for name in run.summary["settings"])
    values = {name: [run.summary["settings"].get(name, "–") for run in runs] for name in names}
    return {name: of_runs for name, of_runs in values.items() if len(set(of_runs)) > 1}


def notes(runs: Sequence[Run]) -> list[str]:
    """Sentences on why the scores of runs cannot be compared without more ado."""
    first, *others = runs
    found = []
    for other in others:
        anomalies = [", ".join(run.summary["anomaly_classes"]) for run in (first, other)]
        if anomalies[0] != anomalies[1]:
            found.append(
                f"{first.name} has the anomaly {anomalies[0]}, and {other.name} has "
                f"{anomalies[1]}: these are different tasks."
            )
        elif unknown := [run.name for run in (first, other) if not run.digests]:
            found.append(
                f"Whether {first.name} and {other.name} were tested on the same images cannot be "
                f"told: an earlier version of capsad made the report of {' and '.join(unknown)}."
            )
        elif first.digests != other.digests:
            common = (first.digests & other.digests).total()
            found.append(
                f"{first.name} and {other.name} were tested on different images: {common} of "
                f"{first.digests.total()} and {other.digests.total()} are the same."
            )
    return found


def scores(runs: Sequence[Run]) -> dict[str, list[dict[str, float] | None]]:
    """Score -> its measures in each run, `None` where a run has no such score."""
    names = dict.fromkeys(name for run in runs for name in run.summary["measures"])
    return {name: [run.summary["measures"].get(name) for run in runs] for name in names}


def html(runs: Sequence[Run]) -> str:
    """Makes a page that needs no other file."""
    others = {
        title: [
            templates.number(run.summary[field], 4 if field == "accuracy" else 0) for run in runs
        ]
        for field, title in _OTHERS.items()
    }
    curves = {run.name: metrics.roc_curve(run.anomaly_score, run.is_anomaly) for run in runs}
    areas = {run.name: metrics.auroc(run.anomaly_score, run.is_anomaly) for run in runs}
    return templates.render(
        "compare.html",
        runs=runs,
        notes=notes(runs),
        scores=scores(runs),
        others=others,
        settings=differing(runs),
        roc=templates.base64_text(figures.png(figures.roc_figure(curves, areas))),
    )
