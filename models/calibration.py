"""Adds the calibrated `anomaly_score` to a model that gives raw scores."""

import keras
import numpy as np

from models.layers import ConformalCalibration
from models.score_names import ANOMALY_SCORE


def calibrate(scorer: keras.Model, scores: np.ndarray, name: str) -> keras.Model:
    """Calibrates one raw normality score by its values for normal images.

    Args:
        scorer: model from images to a dict of named scores.
        scores: values of that score for normal images that were not used in training, float (n,).
        name: name of the raw score from which `anomaly_score` is computed.

    Returns:
        The model with one more output, `anomaly_score`, shape (B,), in [0, 1). See
        `ConformalCalibration`.

    Raises:
        ValueError: if there are no scores, or if a score is not finite.
    """
    if not len(scores):
        raise ValueError("No images to calibrate on.")
    calibration = ConformalCalibration(len(scores), name=ANOMALY_SCORE)
    outputs = {**scorer.output, ANOMALY_SCORE: calibration(scorer.output[name])}
    calibration.calibrate(scores)
    return keras.Model(scorer.input, outputs, name=scorer.name)
