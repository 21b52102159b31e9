"""Runs the cells of a study by the library alone: no TFX, any Keras backend.

A cell's folder in `<output>/cells` holds `result.json` and `scores.npz` and appears whole; a
training that was killed goes on.
"""

import dataclasses
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from components.data.protocol import ANOMALY_LABEL
from components.data.splits import Split
from components.evaluation.report.tables import first_of_each
from models import metrics
from models.errors import UserError
from models.files import whole_folder
from models.scores import ANOMALY_SCORE, anomalousness
from pipeline import machine
from pipeline.study.cells import Cell, backend_name
from pipeline.study.results import write_table

_EXAMPLES = 10  # images of each kind kept with their reconstructions
_BATCH_SIZE = 100


def run(
    cells: Sequence[Cell],
    output: Path,
    progress: Callable[[Cell, int, float], None],
    keep_training: bool = False,
) -> list[str]:
    """Runs the cells that are not finished, and keeps `results.csv` up to date.

    Args:
        cells: what to run.
        output: folder of all studies that share results.
        progress: called with the cell in training, the number of finished cells and the part of
            this one's training that is done, in [0, 1].
        keep_training: keep each cell's state of training: if its results are deleted it is scored
            again without being trained again.

    Returns:
        For each cell that failed or that another study is running, a sentence that says so.
    """
    problems = []
    for done, cell in enumerate(cells):
        progress(cell, done, 0.0)
        folder = output / "cells" / cell.name
        if (folder / "result.json").exists():
            continue
        training = output / "training" / cell.name
        training.mkdir(parents=True, exist_ok=True)
        with (training / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                problems.append(f"{cell.name} is being run by another study.")
                continue
            try:
                _run_cell(cell, folder, training, partial(progress, cell, done))
            except UserError as error:
                problems.append(f"{cell.name} failed: {error}")
                continue
            if not keep_training:
                shutil.rmtree(training)
        write_table(output)
    return problems


def _run_cell(cell, folder, training, progress):
    detector = cell.plan.detector
    splits = cell.plan.load_splits()
    train, validation, test = (splits[name] for name in ("train", "eval", "test"))
    detector = dataclasses.replace(detector, seed=cell.config.seed, backup_dir=str(training))
    scorer = detector.fit(
        train.images,
        train.labels,
        validation=(validation.images, validation.labels),
        calibration=splits["calibration"].images,
        callbacks=(_report_epochs(progress, detector.epochs),),
    )
    scorer.predict(test.images[:_BATCH_SIZE], batch_size=_BATCH_SIZE, verbose=0)  # compiles
    started = time.monotonic()
    outputs = scorer.predict(test.images, batch_size=_BATCH_SIZE, verbose=0)
    scoring = time.monotonic() - started

    result = {
        "data_set": cell.config.data.source_name,
        "protocol": cell.protocol,
        "anomaly": cell.anomaly,
        "normal": ",".join(cell.plan.classes.normal_names),
        "detector": detector.name,
        "seed": cell.config.seed,
        "epochs": detector.epochs,
        "limit_per_class": cell.config.data.limit_per_class,
        "images": len(train.images),
        "tested": len(test.images),
        "accuracy": _accuracy(outputs, test),
        "seconds": round(detector.seconds, 2),
        "train_images_per_s": round(detector.epochs * len(train.images) / detector.seconds, 1),
        "score_images_per_s": round(len(test.images) / scoring, 1),
        "backend": backend_name(),
        "versions": machine.versions(),
        "history": detector.history,
        "scores": _measures([*detector.scores, ANOMALY_SCORE], outputs, test),
    }
    with whole_folder(folder) as incoming:
        np.savez_compressed(
            incoming / "scores.npz",
            is_anomaly=test.labels == ANOMALY_LABEL,
            ids=test.ids,
            **{name: outputs[name] for name in result["scores"]},
        )
        if "reconstruction" in outputs:
            np.savez_compressed(incoming / "examples.npz", **_examples(outputs, test))
        (incoming / "result.json").write_text(json.dumps(result, indent=1))


def _report_epochs(progress, epochs):
    import keras

    class Report(keras.callbacks.Callback):
        epoch = 0

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            progress((self.epoch + (batch + 1) / self.params["steps"]) / epochs)

    return Report()


def _measures(names, outputs, test: Split) -> dict[str, dict[str, float]]:
    is_anomaly = test.labels == ANOMALY_LABEL
    measured = {}
    for name in names:
        ranked = anomalousness(name, outputs[name])
        low, high = metrics.auroc_interval(ranked, is_anomaly)
        measured[name] = {
            "auroc": metrics.auroc(ranked, is_anomaly),
            "auroc_low": low,
            "auroc_high": high,
            "aupr": metrics.aupr(ranked, is_anomaly),
            "fpr_at_95_tpr": metrics.fpr_at_tpr(ranked, is_anomaly),
        }
    return measured


def _accuracy(outputs, test: Split) -> float:
    normal = test.labels != ANOMALY_LABEL
    predicted = outputs["class_probabilities"].argmax(axis=-1)
    return float((predicted == test.labels)[normal].mean())


def _examples(outputs, test: Split) -> dict[str, np.ndarray]:
    """Some normal images and anomalies, in turn of their classes, with their reconstructions."""
    is_anomaly = test.labels == ANOMALY_LABEL
    chosen = np.concatenate(
        [first_of_each(test.texts, kind, _EXAMPLES) for kind in (~is_anomaly, is_anomaly)]
    )
    return {
        "images": test.images[chosen],
        "reconstructions": outputs["reconstruction"][chosen],
        "texts": test.texts[chosen],
        "is_anomaly": is_anomaly[chosen],
    }
