"""Removes the result for the image that `ImagePreprocessing` adds to an empty batch."""

import keras
from keras import ops

from models.layers.shapes import Shape


@keras.saving.register_keras_serializable("capsad")
class TrimBatch(keras.layers.Layer):
    """Keeps as many values as there are images in the batch.

    Call arguments:
        values: tensor, shape (max(B, 1), ...).
        images: tensor, shape (B, ...).

    Returns:
        Tensor, shape (B, ...), with the dtype of `values`.
    """

    def call(self, values: keras.KerasTensor, images: keras.KerasTensor) -> keras.KerasTensor:
        """Cuts `values` to the number of images."""
        return values[: ops.shape(images)[0]]

    def compute_output_shape(self, values_shape: Shape, images_shape: Shape | None = None) -> Shape:
        """Returns the output shape, (B, ...)."""
        return values_shape
