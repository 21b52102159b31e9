"""Length of a capsule: how strongly the network believes that its class is present."""

import keras

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape
from models.layers.squash import vector_length


@keras.saving.register_keras_serializable("capsad")
class CapsuleLength(Float32Layer):
    """Euclidean length of each capsule.

    Call arguments:
        capsules: float tensor, shape (B, J, E).

    Returns:
        Float tensor, shape (B, J), in [0, 1] for squashed capsules.
    """

    def call(self, capsules: keras.KerasTensor) -> keras.KerasTensor:
        """Computes the length along the last axis."""
        return vector_length(capsules)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B, J)."""
        return input_shape[:-1]
