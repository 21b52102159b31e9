"""Scoring in this process by a pushed SavedModel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.scoring.base import INPUT, SIGNATURE, Client, Refused, as_array, one_line
from models.errors import UserError

_FILE = "saved_model.pb"


class SavedModelClient(Client):
    """Runs the SavedModel in `folder`."""

    def __init__(self, folder: str):
        # The loaded object must outlive its signatures.
        self._model = tf.saved_model.load(folder)
        if SIGNATURE not in self._model.signatures:
            raise UserError(
                f"The SavedModel in {folder} has no signature '{SIGNATURE}': give one that "
                "`capsad run` has pushed."
            )
        self._score = self._model.signatures[SIGNATURE]

    def score(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """As documented in `Client`."""
        try:
            outputs = self._score(**{INPUT: tf.constant(images)})
        except tf.errors.InvalidArgumentError as error:
            raise Refused(one_line(error.message)) from error
        return {name: as_array(value.numpy()) for name, value in outputs.items()}


def newest_version(model: str) -> str:
    """Folder of the newest version of a model.

    Args:
        model: a run's output folder, its `serving` folder, or the folder of one version.

    Raises:
        UserError: if no model was pushed there.
    """
    folder = Path(model)
    if (folder / _FILE).is_file():
        return model
    versions = [
        file.parent
        for base in (folder, folder / "serving")
        for file in base.glob(f"*/{_FILE}")
        if file.parent.name.isdecimal()
    ]
    if not versions:
        raise UserError(
            f"{model} holds no pushed model: give a run's output folder, its `serving` folder or "
            "the folder of one version. A model that was not blessed is not pushed."
        )
    return str(max(versions, key=lambda version: int(version.name)))
