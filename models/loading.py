"""Loads a model from a `.keras` file."""

import os

import keras

# Keras finds the classes of a file by their registration, which happens when they are imported.
from models import capsnet, efficient_capsnet, layers, losses, vae

_REGISTERING = (capsnet, efficient_capsnet, layers, losses, vae)


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a model for scoring, without the state of its training, in safe mode.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    return keras.saving.load_model(path, compile=False, safe_mode=True)
