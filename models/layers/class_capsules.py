"""Class capsules: one capsule for each class, computed by dynamic routing."""

from typing import Any

import keras
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape
from models.layers.squash import squash


def dynamic_routing(
    capsules: keras.KerasTensor, matrices: keras.KerasTensor, iterations: int
) -> keras.KerasTensor:
    """Computes output capsules from input capsules, with routing by agreement.

    Each image has I * J prediction vectors `u_hat = u W`. They are never formed, because by
    linearity `s = sum_i (c u) W`, and the agreement is `u_hat . v = u . (v W^T)`. Both are sums
    over the few components of `u`, and each term is a matrix product over the many capsules.

    Args:
        capsules: input capsules `u`, float, shape (B, I, D).
        matrices: transformation matrices `W`, float, shape (I, D, J, E).
        iterations: number of routing iterations, at least 1.

    Returns:
        Output capsules `v`, float32, shape (B, J, E), with lengths in [0, 1].

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, procedure 1.
    """
    capsules, matrices = ops.cast(capsules, "float32"), ops.cast(matrices, "float32")
    count, dim, classes, class_dim = matrices.shape
    # The logits start at 0, so the first coupling is uniform and needs one product. B, J, E
    output = ops.matmul(
        ops.reshape(capsules, (-1, count * dim)),
        ops.reshape(matrices, (count * dim, classes * class_dim)),
    )
    output = ops.reshape(output / classes, (-1, classes, class_dim))
    # J, B, E
    output = squash(ops.transpose(output, (1, 0, 2)))
    if iterations == 1:
        return ops.transpose(output, (1, 0, 2))

    # Lists of D tensors with the shapes B, I; J, I, E; and J, E, I
    components = ops.unstack(ops.transpose(capsules, (2, 0, 1)), dim)
    forward = ops.unstack(ops.transpose(matrices, (1, 2, 0, 3)), dim)
    backward = ops.unstack(ops.transpose(matrices, (1, 2, 3, 0)), dim)
    seen = 0.0
    for _ in range(iterations - 1):
        seen = seen + output
        # J, B, I: the agreements with all outputs so far
        logits = sum(
            ops.matmul(seen, matrix) * component
            for component, matrix in zip(components, backward, strict=True)
        )
        coupling = _softmax(logits)
        # J, B, E
        output = squash(
            sum(
                ops.matmul(coupling * component, matrix)
                for component, matrix in zip(components, forward, strict=True)
            )
        )
    return ops.transpose(output, (1, 0, 2))


def _softmax(logits: keras.KerasTensor) -> keras.KerasTensor:
    """Softmax over the leading axis, where the softmax of Keras would transpose twice."""
    powers = ops.exp(logits - ops.stop_gradient(ops.max(logits, axis=0)))
    return powers / ops.sum(powers, axis=0)


@keras.saving.register_keras_serializable("capsad")
class ClassCapsules(Float32Layer):
    """Fully connected capsules with a transformation matrix for each pair of capsules.

    Args:
        num_capsules: number of output capsules J, one for each class.
        capsule_dim: dimension E of the output capsules.
        routing_iterations: number of iterations of routing by agreement, at least 1.

    Call arguments:
        capsules: float tensor, shape (B, I, D), where I and D are known.

    Returns:
        Float tensor, shape (B, num_capsules, capsule_dim), with lengths in [0, 1].

    Raises:
        ValueError: if `routing_iterations` is below 1.

    Example:
        >>> ClassCapsules(9)(keras.ops.zeros((2, 1152, 8))).shape
        (2, 9, 16)

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, section 2.
    """

    def __init__(
        self, num_capsules: int, capsule_dim: int = 16, routing_iterations: int = 3, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if routing_iterations < 1:
            raise ValueError(f"routing_iterations must be at least 1, not {routing_iterations}.")
        self.num_capsules = num_capsules
        self.capsule_dim = capsule_dim
        self.routing_iterations = routing_iterations

    def build(self, input_shape: tuple[int | None, int, int]) -> None:
        """Creates the transformation matrices W, shape (I, D, J, E)."""
        _, count, dim = input_shape
        self.kernel = self.add_weight(
            name="kernel",
            shape=(count, dim, self.num_capsules, self.capsule_dim),
            # As Sabour et al. do. Initialisers that scale with the fan-in would treat the input
            # capsules as a receptive field.
            initializer=keras.initializers.TruncatedNormal(stddev=0.1),
        )

    def call(self, capsules: keras.KerasTensor) -> keras.KerasTensor:
        """Predicts each output capsule from each input capsule and routes the predictions."""
        return dynamic_routing(capsules, self.kernel, self.routing_iterations)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B, J, E)."""
        return input_shape[0], self.num_capsules, self.capsule_dim

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {
            **super().get_config(),
            "num_capsules": self.num_capsules,
            "capsule_dim": self.capsule_dim,
            "routing_iterations": self.routing_iterations,
        }
