"""Masking: only one class capsule reaches the decoder."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("capsad")
class CapsuleMask(keras.layers.Layer):
    """Sets all capsules but one to zero and flattens them.

    Call arguments:
        capsules: float tensor, shape (B, J, E).
        weights: float tensor, shape (B, J): one-hot true class in training; or the capsules'
            lengths, of which the largest is kept, at inference.

    Returns:
        Float tensor, shape (B, J * E).

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, section 4.1.
    """

    def call(self, capsules, weights) -> keras.KerasTensor:
        """Keeps the capsule of the largest weight."""
        _, classes, dim = capsules.shape
        # B, J, 1
        mask = ops.one_hot(ops.argmax(weights, axis=-1), classes, dtype=capsules.dtype)[..., None]
        return ops.reshape(capsules * mask, (-1, classes * dim))

    def compute_output_shape(self, capsules_shape, weights_shape=None) -> tuple:
        """Shape (B, J * E)."""
        batch, classes, dim = capsules_shape
        return batch, classes * dim
