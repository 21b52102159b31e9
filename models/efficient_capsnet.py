"""Efficient-CapsNet, a small network of capsules with self-attention routing."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from models.capsnet import CapsuleNetwork
from models.errors import UserError
from models.layers import AttentionCapsules, DepthwiseCapsules, standardisation

_SMALLEST = 11  # pixels, which leave one position for the capsules


@keras.saving.register_keras_serializable("capsad")
class EfficientCapsNet(CapsuleNetwork):
    """Four convolutions, depthwise primary capsules, self-attention routing, and a decoder.

    Without the decoder, it has 161,824 trainable parameters for ten classes of 28x28x1 images.

    Args:
        input_shape: height, width and channels (H, W, K) of the images.
        num_classes: number of (normal) classes C. Each class has one class capsule.
        class_dim: dimension E of the class capsules.
        decoder_units: number of units in each hidden layer of the decoder (ReLU).
        standardise: whether to give each image mean 0 and variance 1 before the first convolution.
        precision: dtype policy of the convolutions: `float32` or `mixed_bfloat16`. Everything
            else, including the weights, is float32.

    Raises:
        UserError: if the images are too small for the four convolutions.

    Example:
        >>> network = EfficientCapsNet((28, 28, 1), num_classes=9)
        >>> network(keras.ops.zeros((2, 28, 28, 1)))["lengths"].shape
        (2, 9)

    Reference:
        Mazzia, Salvetti, Chiaberge 2021, Efficient-CapsNet, arXiv 2101.12491.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        class_dim: int = 16,
        decoder_units: Sequence[int] = (512, 1024),
        standardise: bool = False,
        precision: str = "float32",
        **kwargs: Any,
    ):
        check_image_size(input_shape[:2])
        images = keras.Input(input_shape, name="images")
        features = standardisation()(images) if standardise else images
        for filters, size, strides in ((32, 5, 1), (64, 3, 1), (64, 3, 1), (128, 3, 2)):
            features = layers.Conv2D(
                filters,
                size,
                strides,
                activation="relu",
                kernel_initializer="he_normal",
                dtype=precision,
            )(features)
            # With a momentum of 0.99, the averages would lag behind a training of few steps.
            features = layers.BatchNormalization(momentum=0.9, dtype="float32")(features)
        # B, 16, 8
        primary = DepthwiseCapsules(8, name="primary_capsules")(features)
        # B, C, E
        capsules = AttentionCapsules(num_classes, class_dim, name="class_capsules")(primary)
        settings: dict[str, Any] = {
            "input_shape": tuple(input_shape),
            "num_classes": num_classes,
            "class_dim": class_dim,
            "decoder_units": tuple(decoder_units),
            "standardise": standardise,
            "precision": precision,
        }
        super().__init__(images, capsules, settings, **kwargs)


def check_image_size(image_size: tuple[int, int]) -> None:
    """Raises a UserError if images of (height, width) are too small."""
    if min(image_size) < _SMALLEST:
        raise UserError(
            f"Images of {image_size[0]}x{image_size[1]} pixels are too small for "
            f"Efficient-CapsNet, which needs at least {_SMALLEST}x{_SMALLEST}.",
            "image_size",
        )
