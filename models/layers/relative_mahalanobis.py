"""Relative Mahalanobis distance to the classes of stored features."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape

_RIDGE = 1e-3  # added to variances, as a share of their mean
_LEAST_VARIANCE = 1e-6  # of poses, whose length is up to 1; any less is rounding error


@keras.saving.register_keras_serializable("capsad")
class RelativeMahalanobis(Float32Layer):
    """Distance to the mean of the nearest class, less the distance to the mean of all.

    Both are squared Mahalanobis distances, the first with the covariance within classes, the second
    with that of all features. What varies much in all images, and so says little, adds about as
    much to both.

    Args:
        num_classes: number of classes C that are normal.

    Call arguments:
        features: float tensor, shape (B, D).

    Returns:
        Float tensor, shape (B,), any value, higher = more anomalous.

    Reference:
        Ren, Fort, Liu, Roy, Padhy, Lakshminarayanan 2021, A simple fix to Mahalanobis distance for
        improving near-OOD detection, arXiv 2106.09022.
    """

    def __init__(self, num_classes: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def build(self, input_shape: Shape) -> None:
        """Creates two maps (D, D), and where they map the means (C, D) and the mean (D,)."""
        dim = input_shape[-1]

        def weight(name: str, *shape: int | None) -> keras.Variable:
            return self.add_weight(name=name, shape=shape, initializer="zeros", trainable=False)

        self.within = weight("within", dim, dim)
        self.means = weight("means", self.num_classes, dim)
        self.overall = weight("overall", dim, dim)
        self.mean = weight("mean", dim)

    def fit(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Computes means and covariances.

        Args:
            features: float array, shape (N, D).
            labels: int array, shape (N,), values 0 to at least C - 1, all at least once. Classes
                from C on are not normal, but tell how features vary.
        """
        features = features.astype("float64")
        means = np.stack([features[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
        mean = features.mean(axis=0)
        within, overall = _whitening(features - means[labels]), _whitening(features - mean)
        self.within.assign(within)
        self.means.assign(means[: self.num_classes] @ within)
        self.overall.assign(overall)
        self.mean.assign(mean @ overall)

    def call(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Computes the distances."""
        # B, C, D
        to_classes = ops.matmul(features, self.within)[:, None] - self.means
        # B, D
        to_all = ops.matmul(features, self.overall) - self.mean
        nearest = ops.min(ops.sum(ops.square(to_classes), axis=-1), axis=-1)
        return nearest - ops.sum(ops.square(to_all), axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B,)."""
        return input_shape[:1]

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "num_classes": self.num_classes}


def _whitening(residuals: np.ndarray) -> np.ndarray:
    """Matrix (D, D) that gives centred residuals (N, D) the identity as covariance."""
    covariance = residuals.T @ residuals / len(residuals)
    variances, directions = np.linalg.eigh(covariance)
    ridge = _RIDGE * variances.mean() + _LEAST_VARIANCE
    return directions / np.sqrt(np.maximum(variances, 0) + ridge)
