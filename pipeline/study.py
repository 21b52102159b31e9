"""Detectors x anomalies x seeds on a data set, by the library alone: no TFX, any Keras backend.

A cell is one training and its test, with the source, splits, training and scores of the pipeline.
Its folder in `<output>/cells` holds `result.json` and `scores.npz` and appears whole; a training
that was killed goes on. `<output>/results.csv` has a row for each cell and score.
"""

import csv
import dataclasses
import fcntl
import hashlib
import io
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from components.report.tables import first_of_each
from components.splits import ANOMALY_LABEL, Split
from models import metrics
from models.errors import UserError
from models.scores import ANOMALY_SCORE, anomalousness
from pipeline import machine, preflight
from pipeline.configs import PipelineConfig, override

HOLD_OUT = "hold-out"
OPEN_SET = "open-set-6-4"
# The five splits of Neal et al. 2018, Open set learning with counterfactual images, ECCV, as the
# field repeats them: six known classes, the other four unknown, the whole test part.
KNOWN = ("245983", "326940", "583246", "378405", "634982")
_EXAMPLES = 10  # images of each kind kept with their reconstructions
_BATCH_SIZE = 100


@dataclass(frozen=True)
class Cell:
    """One training and its test."""

    plan: preflight.Plan
    protocol: str

    @property
    def config(self) -> PipelineConfig:
        """What is run."""
        return self.plan.config

    @property
    def anomaly(self) -> str:
        """Names of the anomalous classes, separated by commas."""
        return ",".join(self.plan.anomaly_classes)

    @cached_property
    def name(self) -> str:
        """Of the cell's folder: readable, and by its end unique for all that results depend on."""
        data, detector = self.config.data, self.plan.detector
        parts = {
            "source": data.source,
            "source_options": dict(data.source_options),
            "anomaly": self.plan.anomaly,
            "image_size": data.image_size,
            "hold_out": self.plan.hold_out,
            "detector": detector.name,
            "settings": {f.name: getattr(detector, f.name) for f in detector.settings()},
            "seed": self.config.seed,
            "backend": _backend(),
        }
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
        anomaly = "+".join(map(str, self.plan.anomaly))
        return f"{data.source}-{anomaly}-{detector.name}-{self.config.seed}-{digest}"

    @cached_property
    def passes(self) -> int:
        """Images times epochs of the training, those of `eval` and `calibration` included."""
        counts = np.bincount(self.plan.source.labels()["train"])
        counts = np.delete(counts, self.plan.anomaly)
        counts = counts.clip(max=self.config.data.limit_per_class or counts.max())
        return int(counts.sum()) * self.plan.detector.epochs


def make_cells(
    config: PipelineConfig,
    detector_names: Sequence[str],
    anomalies: Sequence[str],
    seeds: Sequence[int],
    protocol: str = HOLD_OUT,
) -> list[Cell]:
    """All combinations, checked as far as can be before anything is trained.

    Args:
        config: of the data set.
        detector_names: detectors.
        anomalies: each a list of classes separated by commas; none: those of the protocol, which
            for hold-out is each class in turn.
        seeds: of splits and training.
        protocol: `HOLD_OUT` or `OPEN_SET`.

    Raises:
        UserError: if data is missing or a combination is not possible.
    """
    source = preflight.find_source(config)
    if protocol == OPEN_SET:
        if anomalies:
            raise UserError(f"The protocol {OPEN_SET} chooses the classes: leave out --anomaly.")
        if len(source.class_names) != 10:
            raise UserError(f"The protocol {OPEN_SET} needs a data set of ten classes.")
        anomalies = [",".join(sorted(set("0123456789") - set(known))) for known in KNOWN]
        config = replace(config, data=replace(config.data, balanced_test=False))
    cells = []
    for anomaly in anomalies or source.class_names:
        for detector in detector_names:
            for seed in seeds:
                chosen = override(config, detector=detector, anomaly=anomaly, seed=seed)
                cells.append(Cell(preflight.plan(chosen, source), protocol))
    return cells


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
        "data_set": cell.config.data.source,
        "protocol": cell.protocol,
        "anomaly": cell.anomaly,
        "normal": ",".join(cell.plan.normal_classes),
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
        "backend": _backend(),
        "versions": machine.versions(),
        "history": detector.history,
        "scores": _measures([*detector.scores, ANOMALY_SCORE], outputs, test),
    }
    incoming = folder.with_name(f".{folder.name}")
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    np.savez_compressed(
        incoming / "scores.npz",
        is_anomaly=test.labels == ANOMALY_LABEL,
        ids=test.ids,
        **{name: outputs[name] for name in result["scores"]},
    )
    if "reconstruction" in outputs:
        np.savez_compressed(incoming / "examples.npz", **_examples(outputs, test))
    (incoming / "result.json").write_text(json.dumps(result, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    incoming.rename(folder)


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


def _backend() -> str:
    import keras

    return keras.backend.backend()


def read(output: Path) -> list[dict[str, Any]]:
    """The finished cells in `output`, as in their `result.json`, with `cell`, their name.

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
    """Writes `results.csv`, a row for each finished cell and score."""
    table = []
    for result in read(output):
        values = {key: value for key, value in result.items() if not isinstance(value, dict)}
        for score, measured in result["scores"].items():
            table.append({key: values[key] for key in _KEYS} | {"score": score} | measured | values)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, table[0].keys())
    writer.writeheader()
    writer.writerows(table)
    write_whole(output / "results.csv", text.getvalue().encode())


def write_whole(path: Path, content: bytes) -> None:
    """Writes under a temporary name, then renames: the file is never half there."""
    incoming = path.with_name(f".{path.name}")
    incoming.write_bytes(content)
    incoming.rename(path)


_KEYS = ("data_set", "protocol", "anomaly", "detector", "seed")


def seconds_left(cells: Sequence[Cell], part: float, finished: Sequence[dict[str, Any]]) -> float:
    """Expected seconds of `cells`, of whose first a `part` is done; NaN before any is finished.

    By the seconds an image of the finished cells of the same detector, or else of all.
    """

    def rate(results):
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
