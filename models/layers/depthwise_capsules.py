"""Primary capsules by a depthwise convolution over a whole feature map."""

from typing import Any

import keras
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape
from models.layers.squash import exponential_squash


@keras.saving.register_keras_serializable("capsad")
class DepthwiseCapsules(Float32Layer):
    """Weighs each channel of a feature map over all positions and groups channels into capsules.

    This is a depthwise convolution whose kernel is as large as the map.

    Args:
        capsule_dim: dimension D of the capsules, by which the number of channels is divisible.

    Call arguments:
        features: float tensor, shape (B, H, W, C), where H, W and C are known.

    Returns:
        Float32 tensor, shape (B, C / D, D), with lengths in [0, 1].

    Raises:
        ValueError: if the channels cannot be grouped.

    Reference:
        Mazzia, Salvetti, Chiaberge 2021, Efficient-CapsNet, arXiv 2101.12491, section 3.1.
    """

    def __init__(self, capsule_dim: int = 8, **kwargs: Any):
        super().__init__(**kwargs)
        self.capsule_dim = capsule_dim

    def build(self, input_shape: tuple[int | None, int, int, int]) -> None:
        """Creates the kernel, shape (H, W, 1, C), and the bias, shape (C,)."""
        _, height, width, channels = input_shape
        if channels % self.capsule_dim:
            raise ValueError(
                f"{channels} channels cannot be grouped into capsules of {self.capsule_dim}."
            )
        self.kernel = self.add_weight(name="kernel", shape=(height, width, 1, channels))
        self.bias = self.add_weight(name="bias", shape=(channels,), initializer="zeros")

    def call(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Adds up each channel, and squashes the capsules."""
        # B, C
        sums = ops.sum(ops.cast(features, "float32") * self.kernel[:, :, 0], axis=(1, 2))
        capsules = ops.reshape(
            sums + self.bias, self.compute_output_shape((-1, *features.shape[1:]))
        )
        return exponential_squash(capsules)

    def compute_output_shape(self, input_shape: tuple[int | None, int, int, int]) -> Shape:
        """Returns the output shape, (B, C / D, D)."""
        batch, _, _, channels = input_shape
        return batch, channels // self.capsule_dim, self.capsule_dim

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "capsule_dim": self.capsule_dim}
