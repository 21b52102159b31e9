"""Primary capsules: a convolution whose channels are grouped into capsules."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from models.device import targets_accelerator
from models.layers.frequency_convolution import (
    frequency_convolution,
    kernel_values,
    multiply_adds,
)
from models.layers.shapes import Shape
from models.layers.squash import squash

# For smaller batches, the direct convolution is faster (measured with CapsNet, 28x28 images), and
# also if the values of the kernel are kept.
_FEW_IMAGES, _FEW_IMAGES_IF_KEPT = 16, 6


@keras.saving.register_keras_serializable("capsad")
class PrimaryCapsules(keras.layers.Layer):
    """Turns a feature map into a flat list of squashed capsules.

    Args:
        capsule_types: number of capsules at each position.
        capsule_dim: dimension of each capsule.
        kernel_size: height and width of the convolution's kernel.
        strides: stride of the convolution.
        method: `direct`, `frequency` or `auto`. `frequency` gives the same result up to rounding,
            and is several times faster on a CPU; see `frequency_convolution`. `auto` chooses it if
            there is no GPU or TPU, it saves arithmetic, and the batch is for training or not very
            small; in an exported model, the device that will serve counts (`models.device`). The
            weights are the same for all methods.

    Raises:
        ValueError: if `method` is not one of the three.

    Call arguments:
        features: float tensor, shape (B, H, W, C).

    Returns:
        float32 tensor, shape (B, H' * W' * capsule_types, capsule_dim), with lengths in [0, 1]. The
        dtype policy applies only to the convolution.

    Example:
        >>> PrimaryCapsules()(keras.ops.zeros((2, 20, 20, 256))).shape
        (2, 1152, 8)

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, section 4.
    """

    def __init__(
        self,
        capsule_types: int = 32,
        capsule_dim: int = 8,
        kernel_size: int = 9,
        strides: int = 2,
        method: str = "auto",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if method not in ("auto", "direct", "frequency"):
            raise ValueError(f"method must be auto, direct or frequency, not {method!r}.")
        self.capsule_types = capsule_types
        self.capsule_dim = capsule_dim
        self.kernel_size = kernel_size
        self.strides = strides
        self.method = method
        self.kept_values: Callable[[], keras.KerasTensor] | None = None
        self.convolution = keras.layers.Conv2D(
            capsule_types * capsule_dim,
            kernel_size,
            strides,
            dtype=self.dtype_policy,
            name="convolution",
        )

    def build(self, input_shape: tuple[int | None, int, int, int]) -> None:
        """Creates the bias and the kernel, shape (kernel_size, kernel_size, C, types * dim)."""
        self.convolution.build(input_shape)
        _, height, width, channels = input_shape
        self._features_shape = height, width, channels

    def call(self, features: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Convolves features, groups channels into capsules and squashes the capsules."""
        # B, H', W', types * dim
        capsules = ops.cast(self._convolve(features, training), "float32")
        # B, I, D
        _, height, width, channels = capsules.shape
        count = height * width * channels // self.capsule_dim
        return squash(ops.reshape(capsules, (-1, count, self.capsule_dim)))

    def kernel_values(self) -> keras.KerasTensor:
        """Computes what does not depend on the features, see `frequency_convolution`.

        In scoring, the weights do not change, so `kept_values` can be set to a function that
        returns these values without computing them again.
        """
        return kernel_values(
            self._cast(self.convolution.kernel), self._features_shape[:2], self.strides
        )

    def _convolve(self, features: keras.KerasTensor, training: bool) -> keras.KerasTensor:
        def in_frequency_domain() -> keras.KerasTensor:
            values = None if training or not self.kept_values else self.kept_values()
            images, kernel, bias = map(
                self._cast, (features, self.convolution.kernel, self.convolution.bias)
            )
            output = frequency_convolution(images, kernel, self.strides, values) + bias
            return ops.cast(output, self.compute_dtype)

        def direct() -> keras.KerasTensor:
            return self.convolution(features)

        if not self.may_use_frequencies:
            return direct()
        if self.method == "frequency" or training:
            return in_frequency_domain()
        # For the few images of one request, transforming the kernel takes too long.
        few = _FEW_IMAGES_IF_KEPT if self.kept_values else _FEW_IMAGES
        return ops.cond(ops.shape(features)[0] < few, direct, in_frequency_domain)

    def _cast(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """To the dtype of the transforms: float16 has too small a range for them."""
        return ops.cast(tensor, "bfloat16" if self.compute_dtype == "bfloat16" else "float32")

    @property
    def may_use_frequencies(self) -> bool:
        """Whether the method and the device allow the frequency domain."""
        if self.method != "auto":
            return self.method == "frequency"
        if targets_accelerator():
            return False
        direct, in_frequency_domain = multiply_adds(
            self._features_shape, self.kernel_size, self.convolution.filters, self.strides
        )
        return in_frequency_domain < direct

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B, I, D)."""
        batch, height, width, _ = self.convolution.compute_output_shape(input_shape)
        return batch, height * width * self.capsule_types, self.capsule_dim

    def compute_output_spec(
        self, features: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        """Returns the shape and dtype of the output."""
        return keras.KerasTensor(self.compute_output_shape(features.shape), "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {
            **super().get_config(),
            "capsule_types": self.capsule_types,
            "capsule_dim": self.capsule_dim,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "method": self.method,
        }
