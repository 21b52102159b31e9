"""From images as they come to the network's input, as a part of the exported model."""

import keras
from keras import ops


def resize_images(images: keras.KerasTensor, image_size: tuple[int, int]) -> keras.KerasTensor:
    """Resizes to `image_size` (height, width), bilinear with anti-aliasing, on the 8-bit grid.

    Rounding back to whole grey values lets resized training images be kept as uint8 without a
    difference to what the exported model computes.

    Args:
        images: uint8 or float tensor of values in [0, 255], shape (B, H, W, C) or (H, W, C).
        image_size: height and width of the result.

    Returns:
        Float32 tensor of whole values in [0, 255], shape (B, *image_size, C) or without B.
    """
    images = ops.cast(images, "float32")
    if tuple(images.shape[-3:-1]) == tuple(image_size):
        return images
    resized = ops.image.resize(
        images,
        image_size,
        interpolation="bilinear",
        antialias=True,
        data_format="channels_last",
    )
    return ops.clip(ops.round(resized), 0.0, 255.0)


@keras.saving.register_keras_serializable("capsad")
class ImagePreprocessing(keras.layers.Layer):
    """Resizes to `image_size`, cuts out the centre, scales to [0, 1].

    An empty batch gets one black image, for on it oneDNN's convolutions fail; see `TrimBatch`.

    Args:
        image_size: height and width after resizing.
        crop_size: height and width of the central part that the network sees; `None`: all.

    Call arguments:
        images: uint8 or float tensor of values in [0, 255], shape (B, H, W, C), H and W any.

    Returns:
        Float32 tensor in [0, 1], shape (max(B, 1), *crop_size, C).
    """

    def __init__(self, image_size, crop_size=None, **kwargs):
        super().__init__(**kwargs)
        self.image_size = tuple(image_size)
        self.crop_size = tuple(crop_size or image_size)

    def call(self, images) -> keras.KerasTensor:
        """Resizes, crops, scales."""
        images = resize_images(images, self.image_size)
        top, left = (
            (size - crop) // 2 for size, crop in zip(self.image_size, self.crop_size, strict=True)
        )
        height, width = self.crop_size
        images = images[:, top : top + height, left : left + width, :] / 255.0
        missing = 1 - ops.minimum(ops.shape(images)[0], 1)
        blank = ops.zeros((1, height, width, images.shape[-1]), dtype=images.dtype)
        return ops.concatenate([images, blank[:missing]])

    def compute_output_shape(self, input_shape) -> tuple:
        """Shape (B, *crop_size, C)."""
        return input_shape[0], *self.crop_size, input_shape[-1]

    def get_config(self) -> dict:
        """Every argument of the constructor."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "crop_size": self.crop_size,
        }
