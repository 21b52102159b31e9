"""Class capsules: one capsule a class, reached from the layer below by dynamic routing."""

import keras
from keras import ops

from models.layers.squash import squash


def dynamic_routing(predictions: keras.KerasTensor, iterations: int) -> keras.KerasTensor:
    """Routing by agreement.

    Args:
        predictions: prediction vectors `u_hat`, float, shape (I, B, J, E): input capsules, batch,
            output capsules, output dimension. The input capsules lead, for that is how the
            batched product that makes the predictions leaves them.
        iterations: routing iterations, at least 1.

    Returns:
        Output capsules `v`, float, shape (B, J, E), lengths in [0, 1].

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, procedure 1.
    """
    # The logits b start at 0, so the first coupling is uniform: s is the mean over the classes.
    capsules = squash(ops.sum(predictions, axis=0) / predictions.shape[2])
    logits = 0.0
    for _ in range(iterations - 1):
        # I, B, J
        logits = logits + ops.sum(predictions * capsules, axis=-1)
        coupling = ops.softmax(logits, axis=-1)
        # B, J, E
        capsules = squash(ops.sum(coupling[..., None] * predictions, axis=0))
    return capsules


@keras.saving.register_keras_serializable("capsad")
class ClassCapsules(keras.layers.Layer):
    """Fully connected capsules with a transformation matrix for each pair of capsules.

    Args:
        num_capsules: output capsules J, one a class.
        capsule_dim: output dimension E.
        routing_iterations: iterations of routing by agreement, at least 1.

    Call arguments:
        capsules: float tensor, shape (B, I, D), I and D known.

    Returns:
        Float tensor, shape (B, num_capsules, capsule_dim), lengths in [0, 1].

    Raises:
        ValueError: if `routing_iterations` is below 1.

    Example:
        >>> ClassCapsules(9)(keras.ops.zeros((2, 1152, 8))).shape
        (2, 9, 16)

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, section 2.
    """

    def __init__(self, num_capsules, capsule_dim=16, routing_iterations=3, **kwargs):
        super().__init__(**kwargs)
        if routing_iterations < 1:
            raise ValueError(f"routing_iterations must be at least 1, not {routing_iterations}.")
        self.num_capsules = num_capsules
        self.capsule_dim = capsule_dim
        self.routing_iterations = routing_iterations

    def build(self, input_shape) -> None:
        """Creates the transformation matrices W, (I, D, J, E)."""
        _, count, dim = input_shape
        self.kernel = self.add_weight(
            name="kernel",
            shape=(count, dim, self.num_capsules, self.capsule_dim),
            # Sabour's own; fan-based schemes would take the input capsules for a receptive field.
            initializer=keras.initializers.TruncatedNormal(stddev=0.1),
        )

    def call(self, capsules) -> keras.KerasTensor:
        """Predicts every output capsule from every input capsule, then routes."""
        count, dim, classes, out = self.kernel.shape
        # I, B, D @ I, D, J * E -> I, B, J * E
        predictions = ops.matmul(
            ops.transpose(capsules, (1, 0, 2)), ops.reshape(self.kernel, (count, dim, -1))
        )
        # I, B, J, E
        predictions = ops.reshape(predictions, (count, -1, classes, out))
        return dynamic_routing(predictions, self.routing_iterations)

    def compute_output_shape(self, input_shape) -> tuple:
        """Shape (B, J, E)."""
        return input_shape[0], self.num_capsules, self.capsule_dim

    def get_config(self) -> dict:
        """Every argument of the constructor."""
        return {
            **super().get_config(),
            "num_capsules": self.num_capsules,
            "capsule_dim": self.capsule_dim,
            "routing_iterations": self.routing_iterations,
        }
