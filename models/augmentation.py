"""Random changes of training images, after which they still show the same."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


@dataclass(frozen=True)
class Augmentation:
    """Shifts, mirrors and brightens images at random."""

    shift: int = 0
    """Largest shift, in pixels; what comes in at the border is black."""
    flip: bool = False
    """Whether half of the images are mirrored, left to right."""
    brightness: float = 0.0
    """Largest change of brightness, as a share of the range from black to white, in [0, 1]."""

    def __call__(
        self, images: np.ndarray, crop_size: tuple[int, int], generator: np.random.Generator
    ) -> np.ndarray:
        """Changes each image, and cuts out a random part of size `crop_size`.

        Args:
            images: uint8 array, shape (B, H, W, K).
            crop_size: height and width of the part.
            generator: generator of the random changes.

        Returns:
            uint8 array, shape (B, *crop_size, K).
        """
        images = random_crops(images, crop_size, self.shift, generator)
        if self.flip:
            mirrored = generator.random(len(images)) < 0.5
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        if self.brightness:
            change = generator.uniform(-255 * self.brightness, 255 * self.brightness, len(images))
            brightened = np.rint(images + change.astype("float32")[:, None, None, None])
            images = brightened.clip(0, 255).astype("uint8")
        return images


def random_crops(
    images: np.ndarray, crop_size: tuple[int, int], shift: int, generator: np.random.Generator
) -> np.ndarray:
    """Adds a black border to each image and cuts out a random part of size `crop_size`.

    If `crop_size` is the size of the images, this shifts them by up to `shift` pixels.

    Args:
        images: array, shape (B, H, W, K).
        crop_size: height and width of the part.
        shift: width of the border on each side, in pixels.
        generator: generator of the random positions.

    Returns:
        Array of the same dtype, shape (B, *crop_size, K).
    """
    height, width = crop_size
    if shift:
        images = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    # B, H - height + 1, W - width + 1, K, height, width
    windows = sliding_window_view(sliding_window_view(images, height, axis=1), width, axis=2)
    rows = generator.integers(windows.shape[1], size=len(images))
    columns = generator.integers(windows.shape[2], size=len(images))
    # B, K, height, width
    crops = windows[np.arange(len(images)), rows, columns]
    return np.moveaxis(crops, 1, -1)


def centre_crops(images: np.ndarray, crop_size: tuple[int, int]) -> np.ndarray:
    """Cuts the central part of size `crop_size` out of images of shape (B, H, W, K)."""
    height, width = crop_size
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]
