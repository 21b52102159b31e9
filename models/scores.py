"""Normality scores as pure functions. All are computed in float32.

As in the paper, higher = more normal.
"""

import math

import keras
from keras import ops

from models.layers.squash import vector_length


def prediction_probability(lengths: keras.KerasTensor) -> keras.KerasTensor:
    """`pp(x) = max_c |v_c|`: the length of the longest class capsule, without softmax.

    Args:
        lengths: float tensor, shape (B, J), in [0, 1].

    Returns:
        Float32 tensor, shape (B,), in [0, 1], higher = more normal.

    Reference:
        arXiv 1907.06312, section 3.
    """
    return ops.max(ops.cast(lengths, "float32"), axis=-1)


def maximum_softmax_probability(logits: keras.KerasTensor) -> keras.KerasTensor:
    """`max_c softmax(logits)_c`: the largest class probability.

    Args:
        logits: float tensor, shape (B, C).

    Returns:
        Float32 tensor, shape (B,), in (0, 1], higher = more normal.

    Reference:
        Hendrycks, Gimpel 2017, arXiv 1610.02136.
    """
    return ops.max(ops.softmax(ops.cast(logits, "float32"), axis=-1), axis=-1)


def max_logit(logits: keras.KerasTensor) -> keras.KerasTensor:
    """`max_c logits_c`: the largest logit, before the softmax.

    Args:
        logits: float tensor, shape (B, C).

    Returns:
        Float32 tensor, shape (B,), any value, higher = more normal.

    Reference:
        Hendrycks et al. 2022, arXiv 1911.11132.
    """
    return ops.max(ops.cast(logits, "float32"), axis=-1)


def energy(logits: keras.KerasTensor) -> keras.KerasTensor:
    """`log sum_c exp(logits_c)`: minus the free energy, at temperature 1.

    Args:
        logits: float tensor, shape (B, C).

    Returns:
        Float32 tensor, shape (B,), any value, higher = more normal.

    Reference:
        Liu, Wang, Owens, Li 2020, arXiv 2010.03759.
    """
    return ops.logsumexp(ops.cast(logits, "float32"), axis=-1)


def reconstruction_error(
    images: keras.KerasTensor, reconstruction: keras.KerasTensor
) -> keras.KerasTensor:
    """`re(x) = -|x - x'|^2 / |x|`: minus the squared error over the *unsquared* image norm.

    The norm is taken as at least 1/255, the norm of an image with one pixel of grey value 1. This
    keeps the score of an all-black image finite, and changes the score of no other image.

    Args:
        images: float tensor in [0, 1], shape (B, H, W, C).
        reconstruction: float tensor in [0, 1], shape (B, H, W, C).

    Returns:
        Float32 tensor, shape (B,), <= 0, higher = more normal.

    Reference:
        arXiv 1907.06312, section 3.
    """
    size = math.prod(images.shape[1:])
    images, reconstruction = (
        ops.cast(ops.reshape(values, (-1, size)), "float32") for values in (images, reconstruction)
    )
    error = ops.sum(ops.square(images - reconstruction), axis=-1)
    return -error / ops.maximum(vector_length(images), 1 / 255)
