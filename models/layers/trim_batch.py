"""Takes back what `ImagePreprocessing` added to an empty batch."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("capsad")
class TrimBatch(keras.layers.Layer):
    """Keeps as many values as there are images.

    Call arguments:
        values: tensor, shape (max(B, 1), ...).
        images: tensor, shape (B, ...).

    Returns:
        Tensor, shape (B, ...), of the dtype of `values`.
    """

    def call(self, values, images) -> keras.KerasTensor:
        """Cuts."""
        return values[: ops.shape(images)[0]]

    def compute_output_shape(self, values_shape, images_shape=None) -> tuple:
        """Shape (B, ...)."""
        return values_shape
