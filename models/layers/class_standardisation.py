"""Values in units of what is usual within the predicted class."""

import keras
import numpy as np
from keras import ops

_FEWEST = 10  # images that tell what is usual in a class
_LEAST_SPREAD = 0.01


def usual_range(values: np.ndarray, least: float) -> tuple[float, float]:
    """Median of values (N,), and how far above it their 0.9 quantile lies, at least `least`."""
    centre, upper = np.quantile(values, [0.5, 0.9])
    return float(centre), float(max(upper - centre, least))


@keras.saving.register_keras_serializable("capsad")
class ClassStandardisation(keras.layers.Layer):
    """`(x - median_c) / (quantile_c(0.9) - median_c)` of values x, c the predicted class.

    What is usual differs by class: a length that is short for a trouser is normal for a shirt.

    Args:
        num_classes: number of classes C.

    Call arguments:
        values: float tensor, shape (B,), higher = more anomalous.
        weights: float tensor, shape (B, C), whose largest is the predicted class's.

    Returns:
        Float tensor, shape (B,).
    """

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def build(self, values_shape, weights_shape=None) -> None:
        """Creates centres and spreads, each (C,)."""
        shape = (self.num_classes,)
        self.centres = self.add_weight(
            name="centres", shape=shape, initializer="zeros", trainable=False
        )
        self.spreads = self.add_weight(
            name="spreads", shape=shape, initializer="ones", trainable=False
        )

    def adapt(self, values: np.ndarray, predicted: np.ndarray) -> None:
        """Takes medians and quantiles of normal images that were not trained on.

        A class predicted for fewer than ten of them gets those of all.

        Args:
            values: float, shape (N,).
            predicted: int, shape (N,), values 0 to C - 1.
        """
        ranges = []
        for label in range(self.num_classes):
            own = values[predicted == label]
            ranges.append(usual_range(own if len(own) >= _FEWEST else values, _LEAST_SPREAD))
        centres, spreads = np.array(ranges).T
        self.centres.assign(centres)
        self.spreads.assign(spreads)

    def call(self, values, weights) -> keras.KerasTensor:
        """Shifts and scales."""
        predicted = ops.argmax(weights, axis=-1)
        centres, spreads = (ops.take(of, predicted) for of in (self.centres, self.spreads))
        return (values - centres) / spreads

    def compute_output_shape(self, values_shape, weights_shape=None) -> tuple:
        """Shape (B,)."""
        return values_shape

    def get_config(self) -> dict:
        """Every argument of the constructor."""
        return {**super().get_config(), "num_classes": self.num_classes}
