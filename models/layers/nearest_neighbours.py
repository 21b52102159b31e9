"""Distance to the k-th nearest neighbour among stored features."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.layers.shapes import Shape
from models.layers.squash import vector_length


@keras.saving.register_keras_serializable("capsad")
class NearestNeighbours(keras.layers.Layer):
    """Minus the distance to the k-th nearest stored feature, after scaling to unit length.

    Args:
        size: number n of stored features.
        neighbours: rank k of the neighbour, from 1 to n.

    Call arguments:
        features: float tensor, shape (B, D).

    Returns:
        Float tensor, shape (B,), in [-2, 0], higher = more normal.

    Reference:
        Sun, Ming, Zhu, Li 2022, Out-of-distribution detection with deep nearest neighbors,
        arXiv 2204.06507.
    """

    def __init__(self, size: int, neighbours: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = size
        self.neighbours = neighbours

    def build(self, input_shape: Shape) -> None:
        """Creates the stored features, shape (n, D)."""
        self.bank = self.add_weight(
            name="bank",
            shape=(self.size, input_shape[-1]),
            initializer="zeros",
            trainable=False,
        )

    def remember(self, features: np.ndarray) -> None:
        """Stores `features`, a float array of shape (n, D)."""
        self.bank.assign(_unit(ops.convert_to_tensor(features)))

    def call(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Finds the neighbour by the cosine, and computes the distance from differences.

        Small distances would lose their accuracy if they were computed from the cosine.
        """
        features = _unit(features)
        # B, n
        cosine = ops.matmul(features, ops.transpose(self.bank))
        farthest = ops.top_k(cosine, self.neighbours)[1][:, -1]
        # B, D
        return -vector_length(features - ops.take(self.bank, farthest, axis=0))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B,)."""
        return input_shape[:1]

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "size": self.size, "neighbours": self.neighbours}


def _unit(vectors: keras.KerasTensor) -> keras.KerasTensor:
    return vectors / ops.maximum(vector_length(vectors, keepdims=True), 1e-12)
