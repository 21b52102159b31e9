"""Adds the calibrated `anomaly_score` to a model that gives raw scores."""

import keras
import numpy as np

from models.layers import ConformalCalibration
from models.scores import ANOMALY_SCORE


def calibrate(
    scorer: keras.Model, images: np.ndarray, score: str, batch_size: int = 100
) -> keras.Model:
    """Calibrates one raw normality score on normal images that were not used in training.

    Args:
        scorer: model from images to a dict of named scores.
        images: uint8 array of normal images only, shape (n, H, W, K).
        score: name of the raw score from which `anomaly_score` is computed.
        batch_size: number of images that are scored at a time.

    Returns:
        The model with one more output, `anomaly_score`, shape (B,), in [0, 1). See
        `ConformalCalibration`.

    Raises:
        ValueError: if there are no images, or if a score is not finite.
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
