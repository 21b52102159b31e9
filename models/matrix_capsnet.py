"""Matrix capsules with EM routing, and a decoder of the winning pose."""

import keras
from keras import layers

from models.errors import UserError
from models.layers import (
    CapsuleMask,
    ClassEmCapsules,
    ConvolutionalEmCapsules,
    standardisation,
)


def matrix_capsnet(
    input_shape: tuple[int, int, int],
    num_classes: int,
    filters: int,
    primary_types: int,
    capsule_types: tuple[int, int],
    routing_iterations: int,
    decoder_units: tuple[int, ...],
    standardise: bool = False,
) -> tuple[keras.Model, keras.Model]:
    """Builds a network of matrix capsules with a decoder.

    It has a ReLU convolution, primary capsules, two layers of convolutional capsules, class
    capsules and a decoder.

    Args:
        input_shape: height, width and channels (H, W, K) of the images.
        num_classes: number of classes C.
        filters: number of channels of the first convolution (5x5, stride 2).
        primary_types: number of types of primary capsules. Each has a 4x4 pose and an activation.
        capsule_types: number of types in each of the two layers of convolutional capsules (3x3,
            strides 2 and 1).
        routing_iterations: number of iterations of EM routing in each layer.
        decoder_units: number of units in each hidden layer of the decoder.
        standardise: whether to give each image mean 0 and variance 1 first.

    Returns:
        Two models with the same weights, one for training and one for scoring. The first takes
        `images` (B, H, W, K) in [0, 1] and one-hot `target` (B, C), and decodes the pose of the
        true class. The second takes images alone, and decodes the pose of the most active class.
        Both give `activations` (B, C) in [0, 1] and `reconstruction` (B, H, W, K) in [0, 1].

    Raises:
        UserError: if the images are too small.

    Reference:
        Hinton, Sabour, Frosst 2018, Matrix capsules with EM routing.
    """
    check_image_size(input_shape[:2])
    images = keras.Input(input_shape, name="images")
    poses, activations = _class_capsules(
        standardisation()(images) if standardise else images,
        num_classes,
        filters,
        primary_types,
        capsule_types,
        routing_iterations,
    )
    encoder = keras.Model(images, [poses, activations], name="encoder")
    decoder = _decoder(num_classes * 16, decoder_units, input_shape)
    target = keras.Input((num_classes,), name="target")
    mask = CapsuleMask(name="mask")
    poses, activations = encoder(images)

    def outputs(weights: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
        return {"activations": activations, "reconstruction": decoder(mask(poses, weights))}

    return (
        keras.Model({"images": images, "target": target}, outputs(target)),
        keras.Model(images, outputs(activations)),
    )


def _class_capsules(
    images: keras.KerasTensor,
    num_classes: int,
    filters: int,
    primary_types: int,
    capsule_types: tuple[int, int],
    routing_iterations: int,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Computes poses (B, C, 16) and activations (B, C) of the class capsules from images."""
    # B, H', W', filters
    features = layers.Conv2D(filters, 5, 2, activation="relu")(images)
    features = layers.BatchNormalization(momentum=0.9)(features)
    height, width = features.shape[1:3]
    poses = layers.Conv2D(primary_types * 16, 1)(features)
    poses = layers.Reshape((height, width, primary_types, 16))(poses)
    activations = layers.Conv2D(primary_types, 1, activation="sigmoid")(features)
    first, second = capsule_types
    poses, activations = ConvolutionalEmCapsules(
        first, 3, 2, routing_iterations, name="convolutional_capsules_1"
    )(poses, activations)
    poses, activations = ConvolutionalEmCapsules(
        second, 3, 1, routing_iterations, name="convolutional_capsules_2"
    )(poses, activations)
    return ClassEmCapsules(num_classes, routing_iterations, name="class_capsules")(
        poses, activations
    )


def _decoder(inputs: int, units: tuple[int, ...], image_shape: tuple[int, int, int]) -> keras.Model:
    decoder = keras.Sequential([keras.Input((inputs,))], name="decoder")
    for count in units:
        decoder.add(layers.Dense(count, activation="relu"))
    height, width, channels = image_shape
    decoder.add(layers.Dense(height * width * channels, activation="sigmoid"))
    decoder.add(layers.Reshape(image_shape))
    return decoder


def check_image_size(image_size: tuple[int, int]) -> None:
    """Raises a UserError if images of (height, width) are too small for the convolutions."""
    if min(image_size) < 17:
        raise UserError(
            f"Images of {image_size[0]}x{image_size[1]} pixels are too small for matrix capsules, "
            "which need at least 17x17: take larger images.",
            "image_size",
        )
