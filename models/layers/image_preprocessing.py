"""Preprocessing of raw images for the network, as a part of the exported model."""

from typing import Any

import keras
from keras import ops

from models.images import resize_images
from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape


@keras.saving.register_keras_serializable("capsad")
class ImagePreprocessing(Float32Layer):
    """Resizes images to `image_size`, cuts out their centres and scales values to [0, 1].

    An empty batch gets one black image, because oneDNN's convolutions fail on empty batches.
    `TrimBatch` removes the result for this image.

    Args:
        image_size: height and width of the images after resizing.
        crop_size: height and width of the central part that the network sees. `None` keeps all.

    Call arguments:
        images: uint8 or float tensor of values in [0, 255], shape (B, H, W, C), for any H and W.

    Returns:
        Float32 tensor in [0, 1], shape (max(B, 1), *crop_size, C).
    """

    def __init__(
        self, image_size: tuple[int, int], crop_size: tuple[int, int] | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        crop_size = crop_size or image_size
        # Both are lists if they come from a saved model.
        self.image_size = (image_size[0], image_size[1])
        self.crop_size = (crop_size[0], crop_size[1])

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Resizes, crops and scales images."""
        images = resize_images(images, self.image_size)
        top, left = (
            (size - crop) // 2 for size, crop in zip(self.image_size, self.crop_size, strict=True)
        )
        height, width = self.crop_size
        images = images[:, top : top + height, left : left + width, :] / 255.0
        blank = ops.zeros((1, height, width, images.shape[-1]), dtype=images.dtype)
        return ops.concatenate([images, blank[ops.shape(images)[0] :]])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B, *crop_size, C)."""
        return input_shape[0], *self.crop_size, input_shape[-1]

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "crop_size": self.crop_size,
        }
