"""The squashing non-linearity of capsule networks."""

import keras
from keras import ops

# Square of the smallest length that is not taken as 0. It keeps the gradient finite at 0.
_TINY = 1e-30


def vector_length(vectors: keras.KerasTensor, keepdims: bool = False) -> keras.KerasTensor:
    """Euclidean length along the last axis, with a finite gradient at 0.

    Args:
        vectors: float tensor, shape (..., D).
        keepdims: whether to keep the reduced axis, with size 1.

    Returns:
        Float32 tensor, shape (...) or (..., 1), values >= 1e-15.
    """
    vectors = ops.cast(vectors, "float32")
    squared = ops.sum(ops.square(vectors), axis=-1, keepdims=keepdims)
    return ops.sqrt(ops.maximum(squared, _TINY))


def squash(vectors: keras.KerasTensor) -> keras.KerasTensor:
    """Shrinks vectors to a length below 1 and keeps their direction.

    `squash(s) = |s|^2 / (1 + |s|^2) * s / |s|` is computed as `s / (|s| + 1 / |s|)`. At s = 0, it
    is 0 and has a finite gradient. There is no overflow up to |s| = 1e18.

    Args:
        vectors: float tensor, shape (..., D).

    Returns:
        Float32 tensor of the same shape, with lengths in [0, 1].

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, equation 1.
    """
    vectors = ops.cast(vectors, "float32")
    length = vector_length(vectors, keepdims=True)
    return vectors / (length + 1.0 / length)


def exponential_squash(vectors: keras.KerasTensor) -> keras.KerasTensor:
    """Shrinks vectors to a length of `1 - exp(-|s|)`, which tells short ones better apart.

    Args:
        vectors: float tensor, shape (..., D).

    Returns:
        Float32 tensor of the same shape, with lengths in [0, 1].

    Reference:
        Mazzia, Salvetti, Chiaberge 2021, arXiv 2101.12491, equation 2.
    """
    vectors = ops.cast(vectors, "float32")
    length = vector_length(vectors, keepdims=True)
    return -ops.expm1(-length) / length * vectors
