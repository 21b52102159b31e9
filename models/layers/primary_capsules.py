"""Primary capsules: a convolution whose channels are grouped into capsules."""

import keras
from keras import ops

from models.device import has_accelerator
from models.layers.frequency_convolution import frequency_convolution, multiply_adds
from models.layers.squash import squash

# Measured on CapsNet for 28x28 images: below, the direct convolution is the faster.
_FEW_IMAGES = 16


@keras.saving.register_keras_serializable("capsad")
class PrimaryCapsules(keras.layers.Layer):
    """Turns a feature map into a flat list of squashed capsules.

    Args:
        capsule_types: capsules at each position.
        capsule_dim: length of each capsule's vector.
        kernel_size: height and width of the convolution's kernel.
        strides: stride of the convolution.
        method: `direct`; `frequency`, equal up to rounding and on a CPU several times faster, see
            `frequency_convolution`; or `auto`, the latter where there is no GPU or TPU, it saves
            arithmetic and images are more than a few. The weights are the same.

    Raises:
        ValueError: if `method` is none of these.

    Call arguments:
        features: float tensor, shape (B, H, W, C).

    Returns:
        float32 tensor whatever the dtype policy, which is that of the convolution; shape
        (B, H' * W' * capsule_types, capsule_dim), lengths in [0, 1].

    Example:
        >>> PrimaryCapsules()(keras.ops.zeros((2, 20, 20, 256))).shape
        (2, 1152, 8)

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, section 4.
    """

    def __init__(
        self,
        capsule_types=32,
        capsule_dim=8,
        kernel_size=9,
        strides=2,
        method="auto",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if method not in ("auto", "direct", "frequency"):
            raise ValueError(f"method must be auto, direct or frequency, not {method!r}.")
        self.capsule_types = capsule_types
        self.capsule_dim = capsule_dim
        self.kernel_size = kernel_size
        self.strides = strides
        self.method = method
        self.convolution = keras.layers.Conv2D(
            capsule_types * capsule_dim,
            kernel_size,
            strides,
            dtype=self.dtype_policy,
            name="convolution",
        )

    def build(self, input_shape) -> None:
        """Creates the kernel, (kernel_size, kernel_size, C, types * dim), and the bias."""
        self.convolution.build(input_shape)

    def call(self, features, training=False) -> keras.KerasTensor:
        """Convolves, groups channels into capsules, squashes."""
        # B, H', W', types * dim
        capsules = ops.cast(self._convolve(features, training), "float32")
        # B, I, D
        _, height, width, channels = capsules.shape
        count = height * width * channels // self.capsule_dim
        return squash(ops.reshape(capsules, (-1, count, self.capsule_dim)))

    def _convolve(self, features, training):
        def in_frequency_domain():
            # In float32, for the transforms are; the output is of the direct one's dtype.
            images, kernel, bias = (
                ops.cast(values, "float32")
                for values in (features, self.convolution.kernel, self.convolution.bias)
            )
            output = frequency_convolution(images, kernel, self.strides) + bias
            return ops.cast(output, self.compute_dtype)

        def direct():
            return self.convolution(features)

        if self.method == "frequency":
            return in_frequency_domain()
        if self.method == "direct" or not self._saves_arithmetic(features.shape[1:]):
            return direct()
        if training:
            return in_frequency_domain()
        # Transforming the kernel does not pay for the few images of one request.
        return ops.cond(ops.shape(features)[0] < _FEW_IMAGES, direct, in_frequency_domain)

    def _saves_arithmetic(self, shape):
        if has_accelerator():
            return False
        direct, in_frequency_domain = multiply_adds(
            shape, self.kernel_size, self.convolution.filters, self.strides
        )
        return in_frequency_domain < direct

    def compute_output_shape(self, input_shape) -> tuple:
        """Shape (B, I, D)."""
        batch, height, width, _ = self.convolution.compute_output_shape(input_shape)
        return batch, height * width * self.capsule_types, self.capsule_dim

    def get_config(self) -> dict:
        """Every argument of the constructor."""
        return {
            **super().get_config(),
            "capsule_types": self.capsule_types,
            "capsule_dim": self.capsule_dim,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "method": self.method,
        }
