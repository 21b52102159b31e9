"""Squared distances to the centre of each class."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape


@keras.saving.register_keras_serializable("capsad")
class ClassCentres(Float32Layer):
    """Squared distance `|x - c_j|^2` to the centre of each class j.

    Args:
        num_classes: number of classes C.

    Call arguments:
        features: float tensor, shape (B, D).

    Returns:
        Float tensor, shape (B, C), with no negative values.

    Reference:
        Ruff et al. 2018, Deep one-class classification, ICML, equation 4.
    """

    def __init__(self, num_classes: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def build(self, input_shape: Shape) -> None:
        """Creates the centres, shape (C, D)."""
        self.centres = self.add_weight(
            name="centres",
            shape=(self.num_classes, input_shape[-1]),
            initializer="zeros",
            trainable=False,
        )

    def place(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Moves each centre to the mean of its class.

        Args:
            features: float array, shape (N, D).
            labels: int array, shape (N,), values 0 to C - 1.
        """
        means = [features[labels == label].mean(axis=0) for label in range(self.num_classes)]
        self.centres.assign(np.stack(means))

    def call(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Computes the squared distances."""
        # B, C, D
        return ops.sum(ops.square(features[:, None, :] - self.centres), axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B, C)."""
        return input_shape[0], self.num_classes

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "num_classes": self.num_classes}
