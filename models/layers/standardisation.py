"""Standardisation of each image by itself."""

import keras


def standardisation() -> keras.layers.Layer:
    """A layer that gives each image (B, H, W, C) mean 0 and variance 1, in each call by itself.

    It computes in float32, whatever the dtype policy says.

    Reference:
        Hinton, Sabour, Frosst 2018, Matrix capsules with EM routing, who do so with smallNORB.
    """
    return keras.layers.LayerNormalization(
        axis=(1, 2, 3),
        epsilon=1e-4,
        center=False,
        scale=False,
        dtype="float32",
        name="standardisation",
    )
