"""Runs models over many images, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def compiled(model: keras.Model) -> Callable:
    """Returns `model` as a function of batches, for inference.

    JAX compiles each operation alone if a model is called, which takes half a minute for CapsNet,
    so it compiles the model as a whole, once for each size of batch. Other backends call the model:
    unlike Keras's `predict`, this traces nothing and works within any distribution strategy.
    """
    import keras

    return model.predict_on_batch if keras.backend.backend() == "jax" else model


def outputs_on(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the output (N, ...) of `network` for uint8 images (N, H, W, K), scaled to [0, 1]."""
    run = compiled(network)
    return in_batches(lambda batch: run(batch.astype("float32") / 255), images)


def in_batches(function: Callable, images: np.ndarray, batch_size: int = 500) -> Any:
    """Calls `function` on batches of images (N, ...) and joins the outputs into arrays.

    The structure of the output stays the same.
    """
    import keras

    starts = range(0, len(images), batch_size)
    batches = [function(images[start : start + batch_size]) for start in starts]
    return keras.tree.map_structure(
        lambda *parts: np.concatenate([keras.ops.convert_to_numpy(part) for part in parts]),
        *batches,
    )
