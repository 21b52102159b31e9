"""Gives a pushed model a new calibration: a new version with the same network."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.data.folder import Table
from components.data.formats import MAX_PIXELS
from components.serving import storage
from components.serving.export import ARGUMENTS_FILE, KERAS_FILE, WARMUP_FILE, export
from components.serving.files import Unreadable, score_files
from components.serving.runner import SavedModelClient, newest_version
from components.serving.sums import write_sums
from models.calibration import calibrate
from models.errors import UserError
from models.loading import load_model
from models.score_names import ANOMALY_SCORE


@dataclass(frozen=True)
class Recalibrated:
    """A new version of a model."""

    folder: str
    images: int
    """Number of its calibration images."""
    flagged_before: float
    """Share of these images that the former version flags, in [0, 1]."""
    unreadable: list[Unreadable]
    """Images that were left out."""


def recalibrate(
    model: str, paths: Iterable[str], table: Table, max_pixels: int = MAX_PIXELS
) -> Recalibrated:
    """Writes a new version beside the newest one, calibrated on other images.

    Args:
        model: a run's output folder, its `serving` folder, or the folder of one version.
        paths: paths of images that are all normal, and that were not trained on.
        table: as for `score_files`.
        max_pixels: largest number of pixels of an image.

    Raises:
        UserError: if the model is none of ours or is older than this function, if its folder is
            not named like a version, or if there is no image.
    """
    former = os.path.abspath(newest_version(model))
    serving, number = os.path.split(former)
    if not number.isdecimal():
        raise UserError(
            f"{former} is not named by the number of a version: give a model as `capsad run` "
            "pushed it."
        )
    client = SavedModelClient(former)  # This checks that it is whole.
    scorer, arguments = _load(former)
    name = arguments["about"]["calibrated_score"]
    scores, flagged, unreadable = [], [], []
    for result in score_files(client, paths, table, max_pixels):
        if isinstance(result, Unreadable):
            unreadable.append(result)
            continue
        scores.append(result.outputs[name])
        flagged.append(result.outputs[ANOMALY_SCORE] > np.float32(1 - arguments["alpha"]))
    if not scores:
        raise UserError("There is no image to calibrate on: give images, or folders of them.")
    values = np.concatenate(scores)
    raw = {key: value for key, value in scorer.output.items() if key != ANOMALY_SCORE}
    calibrated = calibrate(keras.Model(scorer.input, raw, name=scorer.name), values, name)

    # The version is the time of the push, as in TFX's Pusher.
    target = os.path.join(serving, str(max(int(time.time()), int(number) + 1)))
    with storage.incoming(storage.own_name(target)) as folder:
        export(calibrated, folder=folder, **arguments)
        tf.io.gfile.copy(os.path.join(former, WARMUP_FILE), os.path.join(folder, WARMUP_FILE))
        write_sums(folder)
        storage.publish(folder, target)
    return Recalibrated(target, len(values), float(np.concatenate(flagged).mean()), unreadable)


def _load(folder: str) -> tuple[keras.Model, dict[str, Any]]:
    """The model for Keras, and the arguments with which it was exported."""
    path = Path(folder, KERAS_FILE)
    if not path.exists():
        raise UserError(
            f"{folder} has no {KERAS_FILE}: it was pushed by an older version of capsad, so train "
            "and push it again."
        )
    return load_model(path), json.loads(Path(folder, ARGUMENTS_FILE).read_text(encoding="utf-8"))
