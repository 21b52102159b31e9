"""Distance to the k-th nearest neighbour among stored features, and which one is nearest."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape
from models.layers.squash import vector_length


@keras.saving.register_keras_serializable("capsad")
class NearestNeighbours(Float32Layer):
    """Minus the distance to the k-th nearest stored feature, after scaling to unit length.

    It also tells which stored feature is nearest, by the number that was stored with it.

    Args:
        size: number n of stored features.
        neighbours: rank k of the neighbour, from 1 to n.

    Call arguments:
        features: float tensor, shape (B, D).

    Returns:
        Float tensor, shape (B,), in [-2, 0], higher = more normal; and int32 tensor, shape (B,).

    Reference:
        Sun, Ming, Zhu, Li 2022, Out-of-distribution detection with deep nearest neighbors,
        arXiv 2204.06507.
    """

    def __init__(self, size: int, neighbours: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = size
        self.neighbours = neighbours

    def build(self, input_shape: Shape) -> None:
        """Creates the stored features, shape (n, D), and their numbers, shape (n,)."""
        self.bank = self.add_weight(
            name="bank",
            shape=(self.size, input_shape[-1]),
            initializer="zeros",
            trainable=False,
        )
        self.numbers = self.add_weight(
            name="numbers", shape=(self.size,), dtype="int32", initializer="zeros", trainable=False
        )

    def remember(self, features: np.ndarray, numbers: np.ndarray) -> None:
        """Stores `features`, a float array of shape (n, D), with `numbers`, int, shape (n,)."""
        self.bank.assign(_unit(ops.convert_to_tensor(features)))
        self.numbers.assign(numbers)

    def call(self, features: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Finds twice as many candidates by the cosine, and ranks them by their differences.

        Small distances, and who is nearest, would depend on rounding if the cosine alone was used.
        """
        features = _unit(features)
        # B, n
        cosine = ops.matmul(features, ops.transpose(self.bank))
        # B, candidates
        places = ops.top_k(cosine, min(2 * self.neighbours, self.size))[1]
        # B, candidates, D
        difference = features[:, None] - ops.take(self.bank, places, axis=0)
        # B, k
        normality, order = ops.top_k(-vector_length(difference), self.neighbours)
        nearest = ops.take_along_axis(places, order[:, :1], axis=1)[:, 0]
        return normality[:, -1], ops.take(self.numbers, nearest)

    def compute_output_spec(
        self, features: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Returns the shapes and dtypes of both outputs."""
        shape = features.shape[:1]
        return keras.KerasTensor(shape, features.dtype), keras.KerasTensor(shape, "int32")

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "size": self.size, "neighbours": self.neighbours}


def _unit(vectors: keras.KerasTensor) -> keras.KerasTensor:
    return vectors / ops.maximum(vector_length(vectors, keepdims=True), 1e-12)
