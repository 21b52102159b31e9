"""Runs models over many images, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def outputs_on(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the output (N, ...) of `network` for uint8 images (N, H, W, K), scaled to [0, 1]."""
    return in_batches(network, images, read=lambda batch: batch.astype("float32") / 255)


def in_batches(
    model: keras.Model,
    images: np.ndarray,
    batch_size: int = 500,
    read: Callable = lambda batch: batch,
) -> Any:
    """Runs `model` on batches of images (N, ...) and joins its outputs into arrays.

    JAX compiles each operation alone if a model is called, which takes half a minute for CapsNet,
    so it compiles the model as a whole, once for each size of batch. Other backends call the model:
    unlike Keras's `predict`, this traces nothing and works within any distribution strategy.

    Args:
        model: the model. The structure of its output stays the same.
        images: what the batches are cut from.
        batch_size: number of images in each batch. The last one may be smaller.
        read: function from a batch to the inputs of the model.
    """
    import keras

    run = model.predict_on_batch if keras.backend.backend() == "jax" else model
    starts = range(0, len(images), batch_size)
    batches = [run(read(images[start : start + batch_size])) for start in starts]
    return keras.tree.map_structure(
        lambda *parts: np.concatenate([keras.ops.convert_to_numpy(part) for part in parts]),
        *batches,
    )
