"""Scaling of images for networks that were trained on ImageNet."""

from typing import Any

import keras
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape

# Mean of ImageNet's blue, green and red values, for networks that came from Caffe.
_CAFFE_MEANS = (103.939, 116.779, 123.68)


@keras.saving.register_keras_serializable("capsad")
class ImageNetScaling(Float32Layer):
    """Gives images the channels and the range that a network of `keras.applications` expects.

    Grey images are repeated to three channels.

    Args:
        mode: `signed`: values in [-1, 1]; `bytes`: values in [0, 255]; `caffe`: values in
            [0, 255], blue before green before red, minus the means of ImageNet.

    Call arguments:
        images: float tensor in [0, 1], shape (B, H, W, 1 or 3).

    Returns:
        Float tensor, shape (B, H, W, 3).

    Raises:
        ValueError: if there is no such mode.
    """

    def __init__(self, mode: str, **kwargs: Any):
        super().__init__(**kwargs)
        if mode not in ("signed", "bytes", "caffe"):
            raise ValueError(f"mode must be signed, bytes or caffe, not '{mode}'.")
        self.mode = mode

    def build(self, input_shape: Shape) -> None:
        """Fixes the number of channels, which no later call may change."""
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: input_shape[-1]})

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Scales the images."""
        if images.shape[-1] == 1:
            images = ops.repeat(images, 3, axis=-1)
        if self.mode == "signed":
            return images * 2.0 - 1.0
        images = images * 255.0
        if self.mode == "bytes":
            return images
        means = ops.convert_to_tensor(_CAFFE_MEANS, dtype=images.dtype)
        return ops.flip(images, axis=-1) - means

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B, H, W, 3)."""
        return (*input_shape[:-1], 3)

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "mode": self.mode}
