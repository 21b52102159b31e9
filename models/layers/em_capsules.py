"""Matrix capsules with EM routing."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape

_POSE = 4  # poses are 4 x 4 matrices
_PARTS = _POSE * _POSE
_LEAST_VARIANCE = 1e-4
_PosesShape = tuple[int | None, int, int, int, int]  # B, H, W, I, 16
_LOWEST = -1e30


def em_routing(
    votes: keras.KerasTensor,
    activations: keras.KerasTensor,
    beta_use: keras.KerasTensor,
    beta_activate: keras.KerasTensor,
    iterations: int,
    over_positions: Callable = lambda values, reduce, nothing: values,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Clusters the votes of the lower capsules by a mixture of Gaussians.

    The upper capsules compete: each lower capsule is divided among all upper capsules that it votes
    for, in proportion to how well they explain its vote. The E-step is done in log space. If all
    lower capsules are inactive, the poses are the plain mean of the votes, and the activations
    depend on `beta_activate` alone. All is computed in float32.

    Args:
        votes: float tensor, shape (N, J, I, 16): the vote of each of the I lower capsules for each
            of the J upper capsules. N runs over images and positions.
        activations: activations of the lower capsules, float tensor, shape (N, I), in [0, 1].
        beta_use: cost of using an upper capsule, per unit of data and dimension, shape (J,).
        beta_activate: reward for activating an upper capsule, shape (J,).
        iterations: number of routing iterations, at least 1.
        over_positions: for lower capsules that vote at several positions, a function
            `(values, reduce, nothing)` that reduces values (N, I), by `ops.max` or `ops.sum`, over
            all positions at which the same lower capsule votes, and returns the results for each
            position, shape (N, I). `nothing` is a value without effect on the result.

    Returns:
        Poses, shape (N, J, 16), and activations, shape (N, J), in [0, 1], of the upper capsules.

    Reference:
        Hinton, Sabour, Frosst 2018, Matrix capsules with EM routing, procedure 1; the inverse
        temperature rises with each iteration as in Gritzman 2019, Avoiding implementation pitfalls
        of "Matrix capsules with EM routing", arXiv 1907.00652.
    """
    below = votes.shape[2]
    votes, activations, beta_use, beta_activate = (
        ops.cast(values, "float32") for values in (votes, activations, beta_use, beta_activate)
    )
    # N, 1, I
    weight = activations[:, None]
    # N, J, I: at first, all upper capsules explain a vote equally well.
    coupling = _divided(ops.zeros_like(votes[..., 0]), over_positions)
    # N, J
    equal_share = ops.sum(coupling, axis=-1)
    for iteration in range(iterations):
        responsibility = coupling * weight
        # M-step. N, J
        total = ops.sum(responsibility, axis=-1) + 1e-8
        # N, J, 1, I
        share = ((responsibility + 1e-8 / below) / total[..., None])[:, :, None]
        # N, J, 1, 16. The matrix product avoids a temporary tensor as large as the votes.
        mean = ops.matmul(share, votes)
        # N, J, I, 16
        deviation = ops.square(votes - mean)
        # N, J, 16
        variance = ops.matmul(share, deviation)[:, :, 0] + _LEAST_VARIANCE
        log_variance = ops.log(variance)
        # The amount of data of a capsule is relative to an equal share of all data. Therefore the
        # numbers of capsules and positions do not matter.
        amount = total / equal_share
        cost = (beta_use + 0.5 * ops.mean(log_variance, axis=-1)) * amount
        inverse_temperature = 8.0 * (1.0 - 0.95 ** (iteration + 1))
        logit = inverse_temperature * (beta_activate - cost)
        if iteration == iterations - 1:
            break
        # E-step, in log space. N, J, I
        distance = ops.matmul(deviation, (1 / variance)[..., None])[..., 0]
        log_norm = ops.sum(log_variance, axis=-1)  # but for a constant, which has no effect
        log_posterior = (ops.log_sigmoid(logit) - 0.5 * log_norm)[..., None] - 0.5 * distance
        coupling = _divided(log_posterior, over_positions)
    return mean[:, :, 0], ops.sigmoid(logit)


def _divided(log_posterior: keras.KerasTensor, over_positions: Callable) -> keras.KerasTensor:
    """Shares (N, J, I) of the upper capsules, which sum to 1 for each lower capsule."""
    highest = ops.max(ops.stop_gradient(log_posterior), axis=1)
    highest = over_positions(highest, ops.max, _LOWEST)
    powers = ops.exp(log_posterior - highest[:, None])
    return powers / over_positions(ops.sum(powers, axis=1), ops.sum, 0.0)[:, None]


class _EmCapsules(Float32Layer):
    """Base of the two layers, with their matrices, betas and routing."""

    def __init__(self, capsules: int, routing_iterations: int, **kwargs: Any):
        super().__init__(**kwargs)
        if routing_iterations < 1:
            raise ValueError(f"routing_iterations must be at least 1, not {routing_iterations}.")
        self.capsules = capsules
        self.routing_iterations = routing_iterations

    def _add_weights(self, below: int) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(below, _POSE, self.capsules * _POSE),
            initializer=_NearIdentity(),
        )
        self.beta_use = self.add_weight(name="beta_use", shape=(self.capsules,))
        self.beta_activate = self.add_weight(name="beta_activate", shape=(self.capsules,))

    def _votes(self, poses: keras.KerasTensor) -> keras.KerasTensor:
        """Multiplies poses (N, I, 16) by the matrices and returns votes (N, J, I, 16)."""
        below = self.kernel.shape[0]
        # I, N * 4, 4 @ I, 4, J * 4
        poses = ops.reshape(ops.transpose(poses, (1, 0, 2)), (below, -1, _POSE))
        votes = ops.reshape(
            ops.matmul(poses, self.kernel), (below, -1, _POSE, self.capsules, _POSE)
        )
        # N, J, I, 4, 4
        votes = ops.transpose(votes, (1, 3, 0, 2, 4))
        return ops.reshape(votes, (-1, self.capsules, below, _PARTS))

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {
            **super().get_config(),
            "capsules": self.capsules,
            "routing_iterations": self.routing_iterations,
        }


class _NearIdentity(keras.initializers.Initializer):
    """Sets the matrix of each pair of capsules to the identity plus some noise."""

    def __call__(self, shape: tuple[int, int, int], dtype: str | None = None) -> keras.KerasTensor:
        noise = keras.initializers.TruncatedNormal(stddev=0.3)(shape, dtype)
        below, pose, columns = shape
        return noise + ops.tile(ops.eye(pose, dtype=dtype), (1, columns // pose))[None]


@keras.saving.register_keras_serializable("capsad")
class ConvolutionalEmCapsules(_EmCapsules):
    """Convolutional capsules. Each one sees the lower capsules in a square of positions.

    A lower capsule in several squares is divided among the upper capsules of all of them, so that
    those at different positions compete for it, as in the procedure of Hinton et al.

    Args:
        capsules: number J of capsule types at each output position.
        kernel_size: height and width K of the square.
        strides: distance between neighbouring squares.
        routing_iterations: number of iterations of EM routing, at least 1.

    Call arguments:
        poses: float tensor, shape (B, H, W, I, 16).
        activations: float tensor, shape (B, H, W, I), in [0, 1].

    Returns:
        Poses, shape (B, H', W', J, 16), and activations, shape (B, H', W', J), in [0, 1].

    Raises:
        ValueError: if `routing_iterations` is below 1.

    Reference:
        Hinton, Sabour, Frosst 2018, Matrix capsules with EM routing, section 4.
    """

    def __init__(
        self,
        capsules: int,
        kernel_size: int = 3,
        strides: int = 1,
        routing_iterations: int = 3,
        **kwargs: Any,
    ):
        super().__init__(capsules, routing_iterations, **kwargs)
        self.kernel_size = kernel_size
        self.strides = strides

    def build(self, poses_shape: _PosesShape, activations_shape: Shape | None = None) -> None:
        """Creates the matrices, shape (K * K * I, 4, J * 4), and the betas, shape (J,)."""
        self._add_weights(self.kernel_size**2 * poses_shape[3])

    def call(
        self, poses: keras.KerasTensor, activations: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Cuts out the squares and routes their capsules to those above."""
        _, height, width, types, _ = poses.shape
        rows, columns = (self._extent(extent) for extent in (height, width))
        below = self.kernel_size**2 * types
        # B * H' * W', K * K * I, 16
        poses = ops.reshape(self._squares(poses, rows, columns), (-1, below, _PARTS))
        activations = self._squares(activations[..., None], rows, columns)
        activations = ops.reshape(activations, (-1, below))

        positions, places = _overlaps(height, width, self.kernel_size, self.strides)

        def over_positions(
            values: keras.KerasTensor, reduce: Callable, nothing: float
        ) -> keras.KerasTensor:
            # B, H' * W' * K * K, I, and one place more
            values = ops.reshape(values, (-1, len(positions), types))
            values = ops.pad(values, ((0, 0), (0, 1), (0, 0)), constant_values=nothing)
            # B, H * W, I
            values = reduce(ops.take(values, places, axis=1), axis=2)
            return ops.reshape(ops.take(values, positions, axis=1), (-1, below))

        poses, activations = em_routing(
            self._votes(poses),
            activations,
            self.beta_use,
            self.beta_activate,
            self.routing_iterations,
            over_positions,
        )
        return (
            ops.reshape(poses, (-1, rows, columns, self.capsules, _PARTS)),
            ops.reshape(activations, (-1, rows, columns, self.capsules)),
        )

    def _squares(self, values: keras.KerasTensor, rows: int, columns: int) -> keras.KerasTensor:
        """Cuts values (B, H, W, I, P) into squares (B, H', W', K * K, I, P)."""
        parts = []
        for row in range(self.kernel_size):
            for column in range(self.kernel_size):
                bottom = row + (rows - 1) * self.strides + 1
                right = column + (columns - 1) * self.strides + 1
                parts.append(values[:, row : bottom : self.strides, column : right : self.strides])
        return ops.stack(parts, axis=3)

    def _extent(self, extent: int) -> int:
        return 1 + (extent - self.kernel_size) // self.strides

    def compute_output_shape(
        self, poses_shape: _PosesShape, activations_shape: Shape | None = None
    ) -> tuple[Shape, Shape]:
        """Returns the shapes of poses and activations."""
        batch, height, width = poses_shape[:3]
        shape = (batch, self._extent(height), self._extent(width), self.capsules)
        return (*shape, _PARTS), shape

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "kernel_size": self.kernel_size, "strides": self.strides}


@keras.saving.register_keras_serializable("capsad")
class ClassEmCapsules(_EmCapsules):
    """Class capsules, one for each class. All positions share the same matrices.

    The scaled coordinates of its position are added to the first two components of each vote, so
    that the position is not lost (coordinate addition).

    Args:
        capsules: number of classes J.
        routing_iterations: number of iterations of EM routing, at least 1.

    Call arguments:
        poses: float tensor, shape (B, H, W, I, 16).
        activations: float tensor, shape (B, H, W, I), in [0, 1].

    Returns:
        Poses, shape (B, J, 16), and activations, shape (B, J), in [0, 1].

    Raises:
        ValueError: if `routing_iterations` is below 1.

    Reference:
        Hinton, Sabour, Frosst 2018, Matrix capsules with EM routing, section 4.
    """

    def __init__(self, capsules: int, routing_iterations: int = 3, **kwargs: Any):
        super().__init__(capsules, routing_iterations, **kwargs)

    def build(self, poses_shape: _PosesShape, activations_shape: Shape | None = None) -> None:
        """Creates the matrices, shape (I, 4, J * 4), and the betas, shape (J,)."""
        self._add_weights(poses_shape[3])

    def call(
        self, poses: keras.KerasTensor, activations: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Adds coordinates to the votes and routes over all positions."""
        _, height, width, types, _ = poses.shape
        # B * H * W, J, I, 16
        votes = self._votes(ops.reshape(poses, (-1, types, _PARTS)))
        votes = ops.reshape(votes, (-1, height * width, self.capsules, types, _PARTS))
        votes = votes + ops.convert_to_tensor(_coordinates(height, width)[:, None, None, :])
        # B, J, H * W * I, 16
        votes = ops.transpose(votes, (0, 2, 1, 3, 4))
        votes = ops.reshape(votes, (-1, self.capsules, height * width * types, _PARTS))
        return em_routing(
            votes,
            ops.reshape(activations, (-1, height * width * types)),
            self.beta_use,
            self.beta_activate,
            self.routing_iterations,
        )

    def compute_output_shape(
        self, poses_shape: _PosesShape, activations_shape: Shape | None = None
    ) -> tuple[Shape, Shape]:
        """Returns the shapes of poses and activations."""
        shape = (poses_shape[0], self.capsules)
        return (*shape, _PARTS), shape


def _coordinates(height: int, width: int) -> np.ndarray:
    """Array (H * W, 16): row and column, in (0, 1), in the first two components, else 0."""
    coordinates = np.zeros((height, width, _PARTS), "float32")
    coordinates[..., 0] = (np.arange(height)[:, None] + 0.5) / height
    coordinates[..., 1] = (np.arange(width) + 0.5) / width
    return coordinates.reshape(-1, _PARTS)


@functools.cache
def _overlaps(height: int, width: int, size: int, strides: int) -> tuple[np.ndarray, np.ndarray]:
    """Tells which places in the squares show the same position.

    Returns:
        The position, int (H' * W' * K * K,), from 0 to H * W - 1, of each place in each square; and
        the places of each position, int (H * W, P), filled up with the number of all places.
    """
    rows, columns = (
        np.arange(0, extent - size + 1, strides)[:, None] + np.arange(size)
        for extent in (height, width)
    )
    # H', W', K, K
    positions = (rows[:, None, :, None] * width + columns[:, None, :]).ravel()
    counts = np.bincount(positions, minlength=height * width)
    places = np.full((height * width, counts.max()), len(positions))
    places[np.arange(counts.max()) < counts[:, None]] = np.argsort(positions, kind="stable")
    return positions, places
