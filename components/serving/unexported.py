"""Runs a scorer that was not exported, with the outputs of the SavedModel that it would become."""

import json
import threading
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.data.decode import batch_decoder
from components.data.formats import WHITE
from components.data.pixels import decoder_reason
from components.serving.clients.base import LocalClient, Refused, as_array
from components.serving.export import export, metadata, served_outputs, write_warmup_requests
from models.files import whole_folder
from models.inference import in_batches
from models.score_names import PICTURES

# Under JAX, Keras lends the variables of a model to each call of it, so there may be only one.
_ONE_AT_A_TIME = threading.Lock()


class ScorerClient(LocalClient):
    """Runs a scorer in this process. Several threads may use it, and take turns.

    Args:
        scorer: model that the `fit` of a detector returns.
        image_size: height and width to which encoded images are resized.
        class_names: names of the normal classes, in the order of their labels.
        image_names: names of the training images.
        about: what is known of the training, see `export`.
        pictures: as for `Client`.
    """

    def __init__(
        self,
        scorer: keras.Model,
        image_size: tuple[int, int],
        class_names: Sequence[str],
        image_names: Sequence[str],
        about: dict[str, Any],
        pictures: bool = False,
    ):
        super().__init__(pictures)
        self.scorer = scorer
        self._arguments: dict[str, Any] = {
            "image_size": image_size,
            "class_names": class_names,
            "image_names": image_names,
            "white": WHITE,
            "alpha": 0.05,
            "about": about,
        }

    def score(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Scores encoded images, see `Client`."""
        decode = batch_decoder(self._arguments["image_size"], self.scorer.input.shape[-1])
        try:
            decoded = decode(images).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise Refused(decoder_reason(error.message)) from error
        return self.score_arrays(decoded)

    def score_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Scores a batch of decoded images, see `LocalClient`."""
        # Arrays stand between both, because the scorer runs on any backend of Keras.
        with _ONE_AT_A_TIME:
            outputs = in_batches(self.scorer, images)
        outputs = {name: tf.constant(value) for name, value in outputs.items()}
        outputs = served_outputs(self.scorer, outputs, self._arguments)
        return {
            name: as_array(value.numpy())
            for name, value in outputs.items()
            if name not in PICTURES or self.signature == "explain_images"
        }

    def metadata(self) -> dict[str, Any]:
        """What is known of the model, see the signature `metadata` of `export`."""
        return json.loads(json.dumps(metadata(self.scorer, self._arguments)))

    def save(self, folder: str) -> None:
        """Exports the scorer to a folder, which appears whole.

        Raises:
            OSError: if the folder cannot be written, or holds something.
        """
        image_size, channels = self._arguments["image_size"], self.scorer.input.shape[-1]
        with whole_folder(folder) as path:
            export(self.scorer, folder=str(path), **self._arguments)
            write_warmup_requests(str(path), np.zeros((1, *image_size, channels), "uint8"))
