"""Reads scores that were written before, or logged by a server."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.errors import UserError
from models.score_names import ANOMALY_SCORE, LEAST_ALPHA

_SUFFIXES = (".csv", ".jsonl", ".parquet", ".tfrecord", ".gz")


class Served(NamedTuple):
    """Scores in the order in which the images came."""

    names: list[str]
    anomaly_score: np.ndarray
    """float (N,), in [0, 1]."""
    calibration_size: int
    """Number of calibration images of the model."""


class _Row(NamedTuple):
    name: str
    score: float
    least_alpha: float


def read_served(paths: Sequence[str]) -> Served:
    """Reads the scores of files or folders, one after the other.

    Args:
        paths: CSV or JSON lines of `capsad score`; output folders of `capsad score --beam`, which
            are sorted by `id`, because Beam writes in any order; TFRecords of TensorFlow
            Serving's PredictionLog.

    Raises:
        UserError: if a file is missing or damaged, has no scores, or models with calibrations of
            different sizes gave the scores.
    """
    rows = [row for path in paths for row in _rows(Path(path))]
    if not rows:
        raise UserError(f"There are no scores in {', '.join(paths)}.")
    sizes = {round(1 / row.least_alpha) - 1 for row in rows}
    if len(sizes) > 1:
        raise UserError(
            f"The scores in {', '.join(paths)} are of models that were calibrated on different "
            f"numbers of images ({', '.join(map(str, sorted(sizes)))}): watch each model alone."
        )
    return Served([row.name for row in rows], np.array([row.score for row in rows]), sizes.pop())


def _rows(path: Path) -> Iterator[_Row]:
    if not path.exists():
        raise UserError(f"{path} does not exist: give the scores that `capsad score` wrote.")
    try:
        if path.is_dir():
            parts = sorted((path / "scores" if (path / "scores").is_dir() else path).iterdir())
            yield from sorted(row for part in parts for row in _rows(part))
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                yield from map(_row, csv.DictReader(file, strict=True))
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as file:
                yield from (_row(json.loads(line)) for line in file)
        elif path.suffix == ".parquet":
            yield from _parquet(path)
        else:
            yield from _records(path)
    except UserError:  # of a file in a folder
        raise
    except KeyError as error:
        raise UserError(
            f"{path} has no {error}: give scores that `capsad score` wrote as CSV, JSON lines, or "
            "by --beam."
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): give scores that `capsad score` "
            "wrote."
        ) from error
    except (ValueError, TypeError, OverflowError, RecursionError, csv.Error) as error:
        if path.suffix not in _SUFFIXES:
            raise UserError(
                f"{path} holds no scores: give scores that `capsad score` wrote as CSV, JSON "
                "lines, or by --beam, or a server's log in TFRecords."
            ) from error
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}.") from error


def _row(values: dict) -> _Row:
    score, least = float(values[ANOMALY_SCORE]), float(values[LEAST_ALPHA])
    if not (0 <= score <= 1 and 0 < least < 1):  # This is also true of NaN.
        raise ValueError(f"the scores {score} and {least} are not between 0 and 1")
    return _Row(str(values["id" if "id" in values else "image"]), score, least)


def _parquet(path: Path) -> Iterator[_Row]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["id", ANOMALY_SCORE, LEAST_ALPHA]):
            yield from map(_row, batch.to_pylist())


def _records(path: Path) -> Iterator[_Row]:
    """Reads a TFRecord of Examples with scores, or of a server's log."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    packed = "GZIP" if path.suffix == ".gz" else ""
    try:
        for number, record in enumerate(tf.data.TFRecordDataset(str(path), packed)):
            serialized = record.numpy()
            example = tf.train.Example.FromString(serialized)
            if ANOMALY_SCORE in example.features.feature:
                yield _row({name: _first(f) for name, f in example.features.feature.items()})
                continue
            log = prediction_log_pb2.PredictionLog.FromString(serialized)
            outputs = log.predict_log.response.outputs
            values = [tf.make_ndarray(outputs[key]) for key in (ANOMALY_SCORE, LEAST_ALPHA)]
            for place, (score, least) in enumerate(zip(*map(np.ravel, values), strict=True)):
                name = f"{path.name}, request {number + 1}, image {place + 1}"
                yield _row({"id": name, ANOMALY_SCORE: score, LEAST_ALPHA: least})
    except tf.errors.OpError as error:
        raise ValueError(error.message) from error


def _first(feature: Any) -> Any:
    """The first value of a tf.train.Feature, or nothing."""
    for value in getattr(feature, feature.WhichOneof("kind")).value:
        return value.decode() if isinstance(value, bytes) else value
    return None
