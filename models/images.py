"""Operations on images that training data and networks share."""

import keras
from keras import ops


def resize_images(images: keras.KerasTensor, image_size: tuple[int, int]) -> keras.KerasTensor:
    """Resizes images to `image_size` and rounds them to whole grey values.

    The resizing is bilinear with anti-aliasing. Because of the rounding, training images can be
    resized and stored as uint8, and they equal what the exported model computes.

    Args:
        images: uint8 or float tensor of values in [0, 255], shape (B, H, W, C) or (H, W, C).
        image_size: height and width of the result.

    Returns:
        Float32 tensor of whole values in [0, 255], shape (B, *image_size, C) or (*image_size, C).
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
