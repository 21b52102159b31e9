"""Distance of image patches to stored normal patches."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape
from models.layers.squash import vector_length

_CHUNK = 1000  # stored patches that are compared at a time, which bounds memory


@keras.saving.register_keras_serializable("capsad")
class PatchDistance(Float32Layer):
    """Euclidean distance of each patch to the nearest stored patch of each class.

    Args:
        sizes: number of stored patches of each class, C numbers.

    Call arguments:
        patches: float tensor, shape (B, h, w, D).

    Returns:
        Float tensor, shape (B, h, w, C), with no negative values.

    Reference:
        Roth et al. 2022, Towards total recall in industrial anomaly detection, arXiv 2106.08265.
    """

    def __init__(self, sizes: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.sizes = tuple(sizes)

    def build(self, input_shape: Shape) -> None:
        """Creates the stored patches, shape (sum of sizes, D), ordered by class."""
        self.bank = self.add_weight(
            name="bank",
            shape=(sum(self.sizes), input_shape[-1]),
            initializer="zeros",
            trainable=False,
        )

    def remember(self, patches: Sequence[np.ndarray]) -> None:
        """Stores the patches of each class, float arrays of shape (size, D)."""
        self.bank.assign(np.concatenate(patches))

    def call(self, patches: keras.KerasTensor) -> keras.KerasTensor:
        """Finds the nearest patches by matrix products, then the distances from differences.

        Small distances would lose their accuracy if they were computed from the products.
        """
        height, width, depth = patches.shape[1:]
        # B * h * w, D
        flat = ops.reshape(patches, (-1, depth))
        distances, start = [], 0
        for size in self.sizes:
            nearest = self._nearest(flat, start, start + size)
            distances.append(vector_length(flat - ops.take(self.bank, nearest, axis=0)))
            start += size
        # B * h * w, C
        together = ops.stack(distances, axis=-1)
        return ops.reshape(together, (-1, height, width, len(self.sizes)))

    def _nearest(self, flat: keras.KerasTensor, start: int, stop: int) -> keras.KerasTensor:
        """Places, int (N,), of the stored patches from `start` to `stop` nearest to `flat`.

        `|b|^2 - 2 p b` is smallest where `|p - b|^2` is.
        """
        least = nearest = None
        for begin in range(start, stop, _CHUNK):
            stored = self.bank[begin : min(begin + _CHUNK, stop)]
            # N, chunk
            products = ops.matmul(flat, ops.transpose(stored))
            partial = ops.sum(ops.square(stored), axis=-1) - 2 * products
            values, places = ops.min(partial, axis=-1), ops.argmin(partial, axis=-1) + begin
            if least is None:
                least, nearest = values, places
            else:
                nearest = ops.where(values < least, places, nearest)
                least = ops.minimum(least, values)
        return nearest

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B, h, w, C)."""
        return (*input_shape[:-1], len(self.sizes))

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "sizes": self.sizes}
