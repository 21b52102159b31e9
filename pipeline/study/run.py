"""Runs the cells of a study with the library alone, without TFX, on any Keras backend.

A finished cell has its rows in `<output>/results.csv`, and its scores and some images with their
reconstructions in `<output>/cells/<name>.npz`. It is run again only if the code of its detector has
changed. A training that was killed continues after its last complete epoch.
"""

import dataclasses
import fcntl
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.data.protocol import ANOMALY_LABEL
from components.data.splits import Split
from components.evaluation.report.tables import first_of_each
from models import metrics
from models.errors import UserError
from models.files import whole_file
from models.score_names import ANOMALY_SCORE, anomalousness
from pipeline import machine
from pipeline.study import results
from pipeline.study.cells import Cell, backend_name

_EXAMPLES = 10  # number of images of each kind that are stored with their reconstructions
_BATCH_SIZE = 100


def run(
    cells: Sequence[Cell],
    output: Path,
    begin: Callable[[Cell, int], None],
    keep_training: bool = False,
) -> list[str]:
    """Runs the cells that are not finished.

    Args:
        cells: cells that are run.
        output: folder of all studies that share results.
        begin: function that is called with each cell that is run, before it is, and with the number
            of cells before it.
        keep_training: whether to keep the state of training of each cell. If the rows of a cell are
            deleted, it is then scored again without training.

    Returns:
        A sentence for each cell that failed, or that another study is running.

    Raises:
        UserError: if the folder has results of other settings, see `results.check_alike`.
    """
    problems = []
    results.check_alike(output, cells)
    finished = _finished(output)
    for done, cell in enumerate(cells):
        if (cell.name, cell.code) in finished:
            continue
        begin(cell, done)
        training = output / "training" / f"{cell.name}-{cell.code}"
        training.mkdir(parents=True, exist_ok=True)
        with (training / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                problems.append(f"{cell.name} is being run by another study.")
                continue
            if (cell.name, cell.code) in _finished(output):  # Another study has just run it.
                continue
            try:
                result, arrays = _run_cell(cell, training)
            except UserError as error:
                problems.append(f"{cell.name} failed: {error}")
                continue
            except Exception as error:  # The others need not suffer from it.
                logging.exception("%s failed.", cell.name)
                reason = str(error).strip().partition("\n")[0]
                problems.append(f"{cell.name} failed: {type(error).__name__}: {reason}.")
                continue
            (output / "cells").mkdir(exist_ok=True)
            with whole_file(output / "cells" / f"{cell.name}.npz", "wb") as file:
                np.savez_compressed(file, **arrays)
            results.add(output, result)
            if not keep_training:
                shutil.rmtree(training)
    return problems


def _finished(output: Path) -> set[tuple[str, str]]:
    """Name and digest of the code of each finished cell."""
    return {(result["cell"], result["code"]) for result in results.read(output)}


def _run_cell(cell: Cell, training: Path) -> tuple[results.Result, dict[str, Any]]:
    """Trains and tests; returns the result and the arrays of the cell."""
    detector = cell.plan.detector
    splits = cell.plan.load_splits()
    train, validation, test = (splits[name] for name in ("train", "eval", "test"))
    detector = dataclasses.replace(detector, seed=cell.config.seed, backup_dir=str(training))
    scorer = detector.fit(
        train.images,
        train.labels,
        validation=(validation.images, validation.labels),
        calibration=splits["calibration"].images,
    )
    scorer.predict(test.images[:_BATCH_SIZE], batch_size=_BATCH_SIZE, verbose=0)  # This compiles.
    started = time.monotonic()
    outputs = scorer.predict(test.images, batch_size=_BATCH_SIZE, verbose=0)
    scoring = time.monotonic() - started

    scores = _measures([*detector.scores, ANOMALY_SCORE], outputs, test)
    normal = test.labels != ANOMALY_LABEL
    result = {
        **cell.about,
        "images": len(train.images),
        "tested": len(test.images),
        "accuracy": round(_accuracy(outputs, test), 6),
        **{
            f"false_alarms_at_{alpha}": round(
                float((outputs[ANOMALY_SCORE][normal] > 1 - alpha).mean()), 6
            )
            for alpha in (0.05, 0.01)
        },
        "seconds": round(detector.seconds, 2),
        "train_images_per_s": round(detector.epochs * len(train.images) / detector.seconds, 1),
        "score_images_per_s": round(len(test.images) / scoring, 1),
        "backend": backend_name(),
        "cell": cell.name,
        "code": cell.code,
        "machine": machine.describe(),
        "scores": scores,
    }
    arrays = {
        "is_anomaly": test.labels == ANOMALY_LABEL,
        "ids": test.ids,
        **{name: outputs[name] for name in scores},
        **(_examples(outputs, test) if "reconstruction" in outputs else {}),
    }
    return result, arrays


def _measures(
    names: Sequence[str], outputs: Mapping[str, np.ndarray], test: Split
) -> dict[str, dict[str, Any]]:
    is_anomaly = test.labels == ANOMALY_LABEL
    measured = {}
    for name in names:
        ranked = anomalousness(name, outputs[name])
        low, high = metrics.auroc_interval(ranked, is_anomaly)
        numbers = {
            "auroc": metrics.auroc(ranked, is_anomaly),
            "auroc_low": low,
            "auroc_high": high,
            "aupr": metrics.aupr(ranked, is_anomaly),
            "fpr_at_95_tpr": metrics.fpr_at_tpr(ranked, is_anomaly),
        }
        curve = np.interp(results.FALSE_RATES, *metrics.roc_curve(ranked, is_anomaly))
        measured[name] = {
            **{key: round(float(value), 6) for key, value in numbers.items()},
            "roc": [round(float(rate), 3) for rate in curve],
        }
    return measured


def _accuracy(outputs: Mapping[str, np.ndarray], test: Split) -> float:
    normal = test.labels != ANOMALY_LABEL
    predicted = outputs["class_probabilities"].argmax(axis=-1)
    return float((predicted == test.labels)[normal].mean())


def _examples(outputs: Mapping[str, np.ndarray], test: Split) -> dict[str, Any]:
    """Returns some normal images and anomalies of all classes, with their reconstructions."""
    is_anomaly = test.labels == ANOMALY_LABEL
    chosen = np.concatenate(
        [first_of_each(test.texts, kind, _EXAMPLES) for kind in (~is_anomaly, is_anomaly)]
    )
    return {
        "images": test.images[chosen],
        "reconstructions": outputs["reconstruction"][chosen],
        "texts": test.texts[chosen],
        "shown_is_anomaly": is_anomaly[chosen],
    }
