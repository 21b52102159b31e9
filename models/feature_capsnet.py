"""CapsNet on the last feature map of a frozen network."""

from collections.abc import Sequence

import keras
from keras import layers

from models.layers import CapsuleLength, CapsuleMask, ClassCapsules, PrimaryCapsules


def feature_capsnet(
    map_shape: tuple[int, int, int],
    descriptor_dim: int,
    num_classes: int,
    primary_types: int,
    primary_dim: int,
    class_dim: int,
    routing_iterations: int,
    decoder_units: Sequence[int],
) -> tuple[keras.Model, keras.Model]:
    """Builds capsules on a feature map, and a decoder of a descriptor of the image.

    A 1x1 convolution makes the primary capsules. The decoder draws no pixels, which capsules of
    photographs cannot hold, but reconstructs the descriptor.

    Args:
        map_shape: height, width and channels (h, w, D) of the feature map.
        descriptor_dim: dimension P of the descriptor.
        num_classes: number of classes C.
        primary_types: number of types of primary capsules.
        primary_dim: dimension of the primary capsules.
        class_dim: dimension E of the class capsules.
        routing_iterations: number of iterations of routing by agreement.
        decoder_units: number of units in each hidden layer of the decoder (ReLU).

    Returns:
        Two models with the same weights, one for training and one for scoring. The first takes
        `last` (B, h, w, D) and one-hot `target` (B, C), and decodes the capsule of the true class.
        The second takes the map alone, and decodes the longest capsule. Both give `lengths` (B, C)
        in [0, 1] and `reconstruction` (B, P).

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, for the capsules.
    """
    features = keras.Input(map_shape, name="last")
    primary = PrimaryCapsules(primary_types, primary_dim, 1, 1, name="primary_capsules")(features)
    # B, C, E
    capsules = ClassCapsules(num_classes, class_dim, routing_iterations, name="class_capsules")(
        primary
    )
    lengths = CapsuleLength(name="lengths")(capsules)
    decoder = keras.Sequential(
        [
            keras.Input((num_classes * class_dim,)),
            *(layers.Dense(units, activation="relu") for units in decoder_units),
            layers.Dense(descriptor_dim),
        ],
        name="decoder",
    )
    target = keras.Input((num_classes,), name="target")
    mask = CapsuleMask(name="mask")

    def outputs(weights: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
        return {"lengths": lengths, "reconstruction": decoder(mask(capsules, weights))}

    return (
        keras.Model({"last": features, "target": target}, outputs(target)),
        keras.Model(features, outputs(lengths), name="feature_capsnet"),
    )
