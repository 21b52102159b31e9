"""Adds the calibrated `anomaly_score` to a model of raw scores."""

import keras
import numpy as np

from models.layers import ConformalCalibration
from models.scores import ANOMALY_SCORE


def calibrate(
    scorer: keras.Model, images: np.ndarray, score: str, batch_size: int = 100
) -> keras.Model:
    """Calibrates one raw normality score on normal images that training never saw.

    Args:
        scorer: model from images to named scores.
        images: uint8 array, shape (n, H, W, K), normal images only.
        score: name of the raw score that `anomaly_score` is made of.
        batch_size: images scored at a time.

    Returns:
        The model with one output more, `anomaly_score`, shape (B,), in [0, 1): see
        `ConformalCalibration`.

    Raises:
        ValueError: if there are no images or a score is not finite.
    """
    if not len(images):
        raise ValueError("No images to calibrate on.")
    scores = np.concatenate(
        [
            keras.ops.convert_to_numpy(scorer(images[start : start + batch_size])[score])
            for start in range(0, len(images), batch_size)
        ]
    )
    calibration = ConformalCalibration(len(images), name=ANOMALY_SCORE)
    outputs = {**scorer.output, ANOMALY_SCORE: calibration(scorer.output[score])}
    calibration.calibrate(scores)
    return keras.Model(scorer.input, outputs, name=scorer.name)
