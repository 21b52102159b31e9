"""Operations on images that training data and networks share."""

from typing import Any

import keras
from keras import ops

_MOST_ADDED = 4  # An image whose sides would become this many times as long needs too much memory.


def resize_images(images: keras.KerasTensor, image_size: tuple[int, int]) -> keras.KerasTensor:
    """Resizes images to `image_size` and rounds them to whole grey values.

    Proportions are kept: an image of another shape gets a border first, which repeats its outermost
    pixels on both sides. To crop it would lose what is there, and a black bar would be the most
    unusual thing in it. Only an image that is more than four times too long is squeezed.

    The resizing is bilinear with anti-aliasing. Because of the rounding, training images can be
    resized and stored as uint8, and they equal what the exported model computes.

    Args:
        images: uint8 or float tensor of values in [0, 255], shape (B, H, W, C) or (H, W, C).
        image_size: height and width of the result.

    Returns:
        Float32 tensor of whole values in [0, 255], shape (B, *image_size, C) or (*image_size, C).
    """
    images = ops.convert_to_tensor(images)
    if tuple(images.shape[-3:-1]) == tuple(image_size):
        return ops.cast(images, "float32")
    size = ops.shape(images)[-3:-1]
    for axis, old, new in zip((-3, -2), size, bordered_size(size, image_size), strict=True):
        if not isinstance(old, int) or old < new:
            places = ops.arange(new) - (new - old) // 2
            images = ops.take(images, ops.clip(places, 0, old - 1), axis=axis)
    resized = ops.image.resize(
        ops.cast(images, "float32"),
        image_size,
        interpolation="bilinear",
        antialias=True,
        data_format="channels_last",
    )
    return ops.clip(ops.round(resized), 0.0, 255.0)


def bordered_size(size: tuple[Any, Any], image_size: tuple[int, int]) -> tuple[Any, Any]:
    """The size of an image with the border that gives it the proportions of `image_size`.

    Args:
        size: height and width of the image, at least 1: ints, or int tensors where unknown.
        image_size: height and width whose proportions are wanted.

    Returns:
        Height and width, of the same kind.
    """
    height, width = size
    rows, columns = image_size
    return (
        _clip((2 * width * rows + columns) // (2 * columns), height),
        _clip((2 * height * columns + rows) // (2 * rows), width),
    )


def _clip(wanted: Any, size: Any) -> Any:
    if isinstance(wanted, int) and isinstance(size, int):
        return max(min(wanted, _MOST_ADDED * size), size)
    return ops.maximum(ops.minimum(wanted, _MOST_ADDED * size), size)
