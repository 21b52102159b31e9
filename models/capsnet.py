"""CapsNet, a network of capsules with dynamic routing."""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import layers

from models.errors import UserError
from models.layers import (
    CapsuleLength,
    CapsuleMask,
    ClassCapsules,
    PrimaryCapsules,
    standardisation,
)

_MOST_CAPSULES = 20_000  # images of 64x64 pixels make 18,432


class CapsuleNetwork(keras.Model):
    """An encoder from images to class capsules, and a decoder from one of them to the image.

    Its two halves, `encoder` and `decoder`, are separate models, so that training can mask with
    the true class.

    Args:
        images: input, float tensor in [0, 1], shape (B, H, W, K).
        capsules: class capsules of the images, shape (B, C, E).
        settings: arguments of the subclass's constructor, with `input_shape` (H, W, K),
            `num_classes` C and `decoder_units`, the number of units in each hidden layer.

    Call arguments:
        images: float tensor in [0, 1], shape (B, H, W, K).

    Returns:
        Dict of float tensors: `capsules` (B, C, E), `lengths` (B, C) in [0, 1] and
        `reconstruction` (B, H, W, K) in [0, 1], decoded from the longest capsule.
    """

    def __init__(
        self,
        images: keras.KerasTensor,
        capsules: keras.KerasTensor,
        settings: dict[str, Any],
        **kwargs: Any,
    ):
        encoder = keras.Model(images, capsules, name="encoder")
        _, classes, dim = capsules.shape
        decoder = _decoder(classes * dim, settings["decoder_units"], images.shape[1:])
        super().__init__(inputs=images, outputs=_outputs(images, encoder, decoder), **kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.settings = settings

    def training_model(self) -> keras.Model:
        """Builds the model for training, which decodes the capsule of the *true* class.

        Returns:
            Model from `images` (B, H, W, K) and one-hot `target` (B, C) to `lengths` (B, C) and
            `reconstruction` (B, H, W, K). It has the same weights as this network.
        """
        images = keras.Input(self.settings["input_shape"], name="images")
        target = keras.Input((self.settings["num_classes"],), name="target")
        capsules = self.encoder(images)
        return keras.Model(
            {"images": images, "target": target},
            {
                "lengths": CapsuleLength(name="lengths")(capsules),
                "reconstruction": self.decoder(CapsuleMask(name="true_class")(capsules, target)),
            },
        )

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {"name": self.name, **self.settings}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Self:
        """Builds the network again from the dict that `get_config` returns."""
        return cls(**config)


@keras.saving.register_keras_serializable("capsad")
class CapsNet(CapsuleNetwork):
    """Convolution, primary capsules, class capsules with dynamic routing, and a decoder.

    The default arguments give the network of Sabour et al. for MNIST.

    Args:
        input_shape: height, width and channels (H, W, K) of the images.
        num_classes: number of (normal) classes C. Each class has one class capsule.
        filters: number of channels of the first convolution.
        kernel_size: height and width of the first convolution's kernel (stride 1, ReLU).
        primary_types: number of types of primary capsules.
        primary_dim: dimension of the primary capsules.
        primary_kernel_size: kernel size of the convolution that makes the primary capsules.
        primary_strides: stride of the convolution that makes the primary capsules.
        class_dim: dimension E of the class capsules.
        routing_iterations: number of iterations of routing by agreement.
        decoder_units: number of units in each hidden layer of the decoder (ReLU).
        standardise: whether to give each image mean 0 and variance 1 before the first convolution.
            Hinton et al. 2018, Matrix capsules with EM routing, do so with smallNORB.
        precision: dtype policy of the two convolutions, which do most of the arithmetic: `float32`
            or `mixed_bfloat16`. Everything else, including the weights, is float32.

    Raises:
        UserError: if the images are too small for the two convolutions, or so large that routing
            would need gigabytes of memory.

    Example:
        >>> network = CapsNet((28, 28, 1), num_classes=9)
        >>> network(keras.ops.zeros((2, 28, 28, 1)))["lengths"].shape
        (2, 9)

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        filters: int = 256,
        kernel_size: int = 9,
        primary_types: int = 32,
        primary_dim: int = 8,
        primary_kernel_size: int = 9,
        primary_strides: int = 2,
        class_dim: int = 16,
        routing_iterations: int = 3,
        decoder_units: Sequence[int] = (512, 1024),
        standardise: bool = False,
        precision: str = "float32",
        **kwargs: Any,
    ):
        height, width, channels = input_shape
        check_image_size(
            (height, width), kernel_size, primary_kernel_size, primary_strides, primary_types
        )
        images = keras.Input((height, width, channels), name="images")
        # B, H', W', filters
        features = _convolved(images, filters, kernel_size, standardise, precision)
        # B, I, D
        primary = PrimaryCapsules(
            primary_types,
            primary_dim,
            primary_kernel_size,
            primary_strides,
            dtype=precision,
            name="primary_capsules",
        )(features)
        # B, C, E
        capsules = ClassCapsules(num_classes, class_dim, routing_iterations, name="class_capsules")(
            primary
        )
        settings: dict[str, Any] = {
            "input_shape": (height, width, channels),
            "num_classes": num_classes,
            "filters": filters,
            "kernel_size": kernel_size,
            "primary_types": primary_types,
            "primary_dim": primary_dim,
            "primary_kernel_size": primary_kernel_size,
            "primary_strides": primary_strides,
            "class_dim": class_dim,
            "routing_iterations": routing_iterations,
            "decoder_units": tuple(decoder_units),
            "standardise": standardise,
            "precision": precision,
        }
        super().__init__(images, capsules, settings, **kwargs)


def check_image_size(
    image_size: tuple[int, int],
    kernel_size: int,
    primary_kernel_size: int,
    primary_strides: int,
    primary_types: int,
) -> None:
    """Raises a UserError if images of (height, width) make no primary capsules or too many."""
    height, width = image_size
    smallest = kernel_size + primary_kernel_size - 1
    if min(height, width) < smallest:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for this CapsNet, which needs at "
            f"least {smallest}x{smallest}: take larger images, or a smaller kernel_size and "
            "primary_kernel_size.",
            "image_size",
            "kernel_size",
            "primary_kernel_size",
        )
    rows, columns = ((size - smallest) // primary_strides + 1 for size in image_size)
    capsules = rows * columns * primary_types
    if capsules > _MOST_CAPSULES:
        raise UserError(
            f"Images of {height}x{width} pixels are too large for this CapsNet: they would make "
            f"{capsules} primary capsules, more than {_MOST_CAPSULES}. Take smaller images, larger "
            f"primary_strides (now {primary_strides}) or fewer primary_types.",
            "image_size",
            "primary_strides",
            "primary_types",
        )


def _convolved(
    images: keras.KerasTensor, filters: int, kernel_size: int, standardise: bool, precision: str
) -> keras.KerasTensor:
    """Applies the first convolution, before which `standardise` standardises the images."""
    if standardise:
        images = standardisation()(images)
    return layers.Conv2D(
        filters, kernel_size, activation="relu", dtype=precision, name="convolution"
    )(images)


def _outputs(
    images: keras.KerasTensor, encoder: keras.Model, decoder: keras.Model
) -> dict[str, keras.KerasTensor]:
    """Computes the outputs of CapsNet, which decodes the longest capsule."""
    capsules = encoder(images)
    lengths = CapsuleLength(name="lengths")(capsules)
    reconstruction = decoder(CapsuleMask(name="longest")(capsules, lengths))
    return {"capsules": capsules, "lengths": lengths, "reconstruction": reconstruction}


def _decoder(inputs: int, units: Sequence[int], image_shape: tuple[int, int, int]) -> keras.Model:
    height, width, channels = image_shape
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            *(layers.Dense(width, activation="relu") for width in units),
            layers.Dense(height * width * channels, activation="sigmoid"),
            layers.Reshape(image_shape),
        ],
        name="decoder",
    )
