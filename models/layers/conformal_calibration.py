"""Calibration of a normality score by conformal p-values, as a layer of the model."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape


@keras.saving.register_keras_serializable("capsad")
class ConformalCalibration(Float32Layer):
    """Turns a normality score s into `anomaly_score = 1 - p(s)`, in [0, 1).

    `p(s) = (1 + #{calibration scores <= s}) / (n + 1)` is the conformal p-value of s among the
    scores of n normal images that are used for nothing else. For a normal image that is
    exchangeable with these, `P(p <= alpha) <= alpha`. Therefore the rule "flag an image if its
    anomaly_score > 1 - alpha" gives false alarms at a rate of at most alpha. If alpha is below
    1 / (n + 1), the rule flags nothing.

    Args:
        size: number n of calibration scores.

    Call arguments:
        scores: float tensor, shape (B,), higher = more normal.

    Returns:
        Float tensor, shape (B,), in [0, 1), higher = more anomalous. A NaN score counts as
        lower than all others, because no normal image gives NaN.

    Reference:
        Bates, Candes, Lei, Romano, Sesia 2023, "Testing for outliers with conformal p-values",
        arXiv 2104.08279, equation 4.
    """

    def __init__(self, size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = size

    def build(self, input_shape: Shape) -> None:
        """Creates the sorted calibration scores, shape (n,)."""
        self.calibration_scores = self.add_weight(
            name="calibration_scores", shape=(self.size,), initializer="zeros", trainable=False
        )

    def calibrate(self, scores: np.ndarray) -> None:
        """Stores the scores, shape (n,), of normal images that were not used in training.

        Raises:
            ValueError: if the number of scores is not `size`, or if a score is not finite.
        """
        scores = np.asarray(scores, "float32")
        if scores.shape != (self.size,):
            raise ValueError(f"Expected {self.size} calibration scores, not {scores.shape}.")
        if not np.isfinite(scores).all():
            raise ValueError("Calibration scores contain NaN or infinity.")
        self.calibration_scores.assign(np.sort(scores))

    def call(self, scores: keras.KerasTensor) -> keras.KerasTensor:
        """Computes 1 - p."""
        scores = ops.where(ops.isnan(scores), -np.inf, scores)
        at_most = ops.searchsorted(self.calibration_scores, scores, side="right")
        return 1.0 - (1.0 + ops.cast(at_most, scores.dtype)) / (self.size + 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B,)."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "size": self.size}
