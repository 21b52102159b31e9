"""Mask that lets only one class capsule reach the decoder."""

import keras
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape


@keras.saving.register_keras_serializable("capsad")
class CapsuleMask(Float32Layer):
    """Sets all capsules except one to zero and flattens the result.

    Call arguments:
        capsules: float tensor, shape (B, J, E).
        weights: float tensor, shape (B, J): the one-hot true class in training, the lengths of the
            capsules at inference. The capsule with the largest weight is kept.

    Returns:
        Float tensor, shape (B, J * E).

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, section 4.1.
    """

    def call(self, capsules: keras.KerasTensor, weights: keras.KerasTensor) -> keras.KerasTensor:
        """Keeps the capsule with the largest weight."""
        _, classes, dim = capsules.shape
        # B, J, 1
        mask = ops.one_hot(ops.argmax(weights, axis=-1), classes, dtype=capsules.dtype)[..., None]
        return ops.reshape(capsules * mask, (-1, classes * dim))

    def compute_output_shape(
        self, capsules_shape: tuple[int | None, int, int], weights_shape: Shape | None = None
    ) -> Shape:
        """Returns the output shape, (B, J * E)."""
        batch, classes, dim = capsules_shape
        return batch, classes * dim
