"""What images may be: arrays of one size, arrays of several, or files and folders."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from models.errors import UserError

Images = np.ndarray | Sequence[np.ndarray] | str | os.PathLike | Sequence[str | os.PathLike]


def as_images(images: Any) -> np.ndarray:
    """Checks images and gives them a channel.

    Args:
        images: uint8 array, shape (N, H, W) or (N, H, W, K), where K is 1 or 3.

    Returns:
        The array, shape (N, H, W, K).

    Raises:
        UserError: if `images` do not have this form.
    """
    images = np.asarray(images)
    if images.dtype.kind == "f" and np.isnan(images).any():
        raise UserError("The images contain NaN: give whole grey values from 0 to 255, as uint8.")
    if images.dtype != np.uint8:
        raise UserError(
            f"Images must be uint8, from 0 for black to 255, not {images.dtype}: convert them, "
            "for example by (255 * images).astype('uint8') if they are in [0, 1]."
        )
    shape = images.shape
    if images.ndim == 3 and shape[-1] not in (1, 3):
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise UserError(
            "Images must have the shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), with N at least "
            f"1, not {shape}: give a single image as a list."
        )
    return images


def as_paths(images: Images) -> list[str] | None:
    """The paths, if `images` are files or folders.

    Raises:
        UserError: if there are both paths and arrays, nothing, or a path that does not exist.
    """
    if isinstance(images, str | os.PathLike):
        images = [images]
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OU":
        return None
    paths = [os.fspath(item) for item in images if isinstance(item, str | os.PathLike)]
    if len(images) and not paths:
        return None
    if len(paths) < len(images) or not paths:
        raise UserError("Give images as arrays or as paths, at least one, and not as both.")
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f"{path} does not exist: give images, or folders of them.")
    return paths


def by_shape(images: Any, channels: int) -> Iterator[np.ndarray]:
    """Gives arrays of images of one shape, uint8 (N, H, W, K), in the order of `images`.

    Args:
        images: array of images, or a list of arrays (H, W) or (H, W, K) of any sizes.
        channels: number K of channels that the detector was trained on.

    Raises:
        UserError: if they are no images, or have another number of channels.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind != "O":
        groups = [as_images(images)]
    else:
        single = (as_images(np.asarray(image)[np.newaxis]) for image in images)
        groups = [
            np.concatenate(list(group))
            for _, group in itertools.groupby(single, lambda image: image.shape)
        ]
    for group in groups:
        if group.shape[-1] != channels:
            raise UserError(
                f"The images have {group.shape[-1]} channels, and the detector was trained on "
                f"images with {channels}: convert them."
            )
        yield group
