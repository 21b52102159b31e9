"""Removes the result for the image that `ImagePreprocessing` adds to an empty batch."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("capsad")
class TrimBatch(keras.layers.Layer):
    """Keeps as many values as there are images in the batch, and never rounds them.

    Call arguments:
        values: tensor, shape (max(B, 1), ...).
        images: tensor, shape (B, ...).

    Returns:
        Tensor, shape (B, ...), with the dtype of `values`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{**kwargs, "autocast": False})

    def call(self, values: keras.KerasTensor, images: keras.KerasTensor) -> keras.KerasTensor:
        """Cuts `values` to the number of images."""
        return values[: ops.shape(images)[0]]

    def compute_output_spec(
        self, values: keras.KerasTensor, images: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Returns the shape and dtype of the output, (B, ...)."""
        return keras.KerasTensor(values.shape, values.dtype)
