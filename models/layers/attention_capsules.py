"""Class capsules by self-attention, without iterations."""

from typing import Any

import keras
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape
from models.layers.squash import exponential_squash


@keras.saving.register_keras_serializable("capsad")
class AttentionCapsules(Float32Layer):
    """Fully connected capsules that are routed by the agreement of their predictions.

    Each input capsule predicts each output capsule by a matrix: `u_hat = u W`. A prediction has
    as much weight as it agrees with the others of the same output capsule:
    `a_ij = u_hat_ij . sum_k u_hat_kj / sqrt(E)`, and the weights are `softmax_j(a_ij) + prior_ij`.
    The output is the squashed weighted sum.

    Args:
        num_capsules: number of output capsules J, one for each class.
        capsule_dim: dimension E of the output capsules.

    Call arguments:
        capsules: float tensor, shape (B, I, D), where I and D are known.

    Returns:
        Float32 tensor, shape (B, num_capsules, capsule_dim), with lengths in [0, 1].

    Reference:
        Mazzia, Salvetti, Chiaberge 2021, Efficient-CapsNet, arXiv 2101.12491, equations 3 to 7.
    """

    def __init__(self, num_capsules: int, capsule_dim: int = 16, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_capsules = num_capsules
        self.capsule_dim = capsule_dim

    def build(self, input_shape: tuple[int | None, int, int]) -> None:
        """Creates the matrices W, shape (J, I, D, E), and the priors of the weights, (J, I)."""
        _, count, dim = input_shape
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.num_capsules, count, dim, self.capsule_dim),
            initializer="he_normal",
        )
        self.prior = self.add_weight(
            name="prior", shape=(self.num_capsules, count), initializer="zeros"
        )

    def call(self, capsules: keras.KerasTensor) -> keras.KerasTensor:
        """Predicts each output capsule from each input capsule and weighs the predictions."""
        # B, J, I, E
        predictions = ops.einsum("bid,jide->bjie", ops.cast(capsules, "float32"), self.kernel)
        # B, J, I: the sum over all predictions first, which is the same and cheaper
        agreement = ops.sum(predictions * ops.sum(predictions, axis=2, keepdims=True), axis=-1)
        weights = ops.softmax(agreement / self.capsule_dim**0.5, axis=1) + self.prior
        return exponential_squash(ops.sum(weights[..., None] * predictions, axis=2))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B, J, E)."""
        return input_shape[0], self.num_capsules, self.capsule_dim

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {
            **super().get_config(),
            "num_capsules": self.num_capsules,
            "capsule_dim": self.capsule_dim,
        }
