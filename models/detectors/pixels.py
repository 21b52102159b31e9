"""Base class of the detectors that see pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.detectors.base import Detector, image_shape
from models.detectors.settings import setting
from models.errors import UserError

if TYPE_CHECKING:
    import keras


@dataclass(kw_only=True)
class PixelDetector(Detector):
    """Adds settings for the part of an image that is seen, and for its contrast."""

    crop_size: tuple[int, int] | None = setting(
        None,
        "Height and width of the part of each image that the detector sees: a random part in "
        "training, the centre in scoring. `None` means the whole image.",
    )
    standardise: bool = setting(
        False,
        "Whether to give each image mean 0 and variance 1 first. Without it, training may fail on "
        "images with a light background.",
    )

    def seen_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Returns height and width of the part that is seen of images of (height, width).

        Raises:
            UserError: if that part is larger than the images.
        """
        height, width = self.crop_size or image_size
        if height > image_size[0] or width > image_size[1]:
            raise UserError(
                f"Parts of {height}x{width} pixels cannot be cut out of images of "
                f"{image_size[0]}x{image_size[1]}: take larger images or a smaller crop_size.",
                "image_size",
                "crop_size",
            )
        return height, width

    def seen_shape(self, images: np.ndarray) -> tuple[int, int, int]:
        """Returns height, width and channels of what is seen of images (N, H, W, K)."""
        height, width, channels = image_shape(images)
        return (*self.seen_size((height, width)), channels)

    def seen(self, images: np.ndarray) -> np.ndarray:
        """Returns what is seen of images (N, H, W, K) in scoring: their centres."""
        from models.augmentation import centre_crops

        return centre_crops(images, self.seen_shape(images)[:2])

    def scorer_input(self, images: np.ndarray) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """The input of a scorer, uint8 (B, H', W', K), and what is seen of it, in [0, 1].

        Args:
            images: the training images (N, H, W, K), to whose size (H, W) images are resized.
        """
        import keras

        from models.layers import ImagePreprocessing

        inputs = keras.Input((None, None, images.shape[-1]), dtype="uint8", name="images")
        preprocessing = ImagePreprocessing(
            image_shape(images)[:2], self.seen_shape(images)[:2], name="preprocessing"
        )
        return inputs, preprocessing(inputs)
