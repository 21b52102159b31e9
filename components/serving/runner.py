"""Loads and runs a SavedModel, and reads what its outputs are."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from components.data.pixels import decoder_reason
from components.serving.clients.base import INPUT, LocalClient, Refused, as_array
from components.serving.sums import FILE, check_whole
from models.errors import UserError

_FILE = "saved_model.pb"
_SIGNATURE = "score_images"

Kind = Literal["text", "flag", "number", "numbers"]


class SavedModelClient(LocalClient):
    """Runs the SavedModel in `folder` in this process.

    Args:
        folder: folder of the SavedModel.
        pictures: as for `Client`.

    Raises:
        UserError: if the SavedModel is damaged or not one of ours.
    """

    def __init__(self, folder: str, pictures: bool = False):
        super().__init__(pictures)
        check_whole(folder)
        # The signatures work only as long as the loaded object exists.
        self._model = tf.saved_model.load(folder)

    def score(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Scores encoded images, see `Client`."""
        try:
            outputs = self._model.signatures[self.signature](**{INPUT: tf.constant(images)})
        except tf.errors.InvalidArgumentError as error:
            raise Refused(decoder_reason(error.message)) from error
        return {name: as_array(value.numpy()) for name, value in outputs.items()}

    def score_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Scores a batch of decoded images, see `LocalClient`."""
        signature = self._model.signatures[self.signature.replace("images", "arrays")]
        outputs = signature(**{INPUT: tf.constant(images)})
        return {name: as_array(value.numpy()) for name, value in outputs.items()}

    def metadata(self) -> dict[str, Any]:
        """What is known of the model, see the signature `metadata` of `export`."""
        (known,) = self._model.signatures["metadata"](query=tf.constant([""]))["metadata"].numpy()
        return json.loads(known)


def output_kinds(folder: str) -> dict[str, Kind]:
    """Reads the outputs of `score_images` of the SavedModel in `folder`, without loading it.

    Returns:
        Name of each output -> its kind for one image.

    Raises:
        UserError: if there is no SavedModel, or if it is damaged or not one of ours.
    """
    if not tf.io.gfile.exists(f"{folder}/{_FILE}"):
        raise UserError(
            f"{folder} holds no SavedModel: give a version's folder in the `serving` of a run."
        )
    check_whole(folder)
    with tf.io.gfile.GFile(f"{folder}/{_FILE}", "rb") as file:
        model = saved_model_pb2.SavedModel.FromString(file.read())
    outputs = model.meta_graphs[0].signature_def[_SIGNATURE].outputs
    return {name: _kind(tensor) for name, tensor in sorted(outputs.items())}


def newest_version(model: str) -> str:
    """Finds the folder of the newest version of a model.

    Args:
        model: a run's output folder, its `serving` folder, or the folder of one version.

    Raises:
        UserError: if no model was pushed there.
    """
    folder = Path(model)
    if _is_model(folder):
        return model
    versions = [
        version
        for base in (folder, folder / "serving")
        for version in base.glob("*")
        if version.name.isdecimal() and _is_model(version)
    ]
    if not versions:
        raise UserError(
            f"{model} holds no pushed model: give a run's output folder, its `serving` folder or "
            "the folder of one version. A model that was not blessed is not pushed."
        )
    return str(max(versions, key=lambda version: int(version.name)))


def _is_model(folder: Path) -> bool:
    """Whether this is a SavedModel, also if it is damaged."""
    return (folder / _FILE).is_file() or (folder / FILE).is_file()


def _kind(tensor: meta_graph_pb2.TensorInfo) -> Kind:
    if tensor.dtype == tf.string.as_datatype_enum:
        return "text"
    if tensor.dtype == tf.bool.as_datatype_enum:
        return "flag"
    return "number" if len(tensor.tensor_shape.dim) == 1 else "numbers"
