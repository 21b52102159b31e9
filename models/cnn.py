"""Small convolutional classifier; several detectors use its features and logits for scores."""

import keras
from keras import layers

from models.errors import UserError
from models.layers import standardisation


def cnn(
    input_shape: tuple[int, int, int],
    num_classes: int,
    architecture: str,
    standardise: bool = False,
) -> keras.Model:
    """Builds a classifier of images.

    Args:
        input_shape: height, width and channels (H, W, K) of the images.
        num_classes: number of classes C.
        architecture: `paper` or `modern`. `paper` has 3x3 convolutions with 32 and 64 channels, 2x2
            max-pooling and 128 dense units. `modern` has three stages with 32, 64 and 128 channels,
            each of two batch-normalised 3x3 convolutions. Its features are the global average of
            the last stage.
        standardise: whether to give each image mean 0 and variance 1 first.

    Returns:
        Model from float images (B, H, W, K) in [0, 1] to `features` (B, 128), which are not
        negative, and `logits` (B, C).

    Raises:
        UserError: if there is no such architecture, or if the images are too small for it.

    Reference:
        arXiv 1907.06312, section 4, for `paper`.
    """
    check_image_size(input_shape[:2])
    images = keras.Input(input_shape, name="images")
    hidden = standardisation()(images) if standardise else images
    if architecture == "paper":
        hidden = layers.Conv2D(32, 3, activation="relu")(hidden)
        hidden = layers.Conv2D(64, 3, activation="relu")(hidden)
        hidden = layers.Flatten()(layers.MaxPooling2D()(hidden))
        features = layers.Dense(128, activation="relu")(hidden)
    elif architecture == "modern":
        for stage, filters in enumerate((32, 64, 128)):
            for strides in (1 if stage == 0 else 2, 1):
                hidden = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(hidden)
                hidden = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(hidden))
        features = layers.GlobalAveragePooling2D()(hidden)
    else:
        raise UserError(
            f"architecture must be paper or modern, not '{architecture}'.", "architecture"
        )
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(features)
    return keras.Model(images, {"features": features, "logits": logits}, name="cnn")


def check_image_size(image_size: tuple[int, int]) -> None:
    """Raises a UserError if images of (height, width) are too small for the max-pooling."""
    if min(image_size) < 6:
        raise UserError(
            f"Images of {image_size[0]}x{image_size[1]} pixels are too small for this network, "
            "which needs at least 6x6: take larger images.",
            "image_size",
        )
