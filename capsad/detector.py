"""Detectors that are trained on arrays or loaded from a folder, and score images."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from capsad.images import Images, as_images, as_paths, by_shape
from capsad.result import Scores
from components.data.folder import Table, find_images
from components.data.protocol import ANOMALY_LABEL, CALIBRATION, EVAL, TRAIN, split_normal
from components.serving.clients.base import LocalClient
from components.serving.files import Unreadable, score_files
from components.serving.runner import SavedModelClient, newest_version
from components.serving.unexported import ScorerClient
from models import detectors
from models.detectors.base import image_shape
from models.errors import UserError


class FittedDetector:
    """A trained and calibrated detector, which `fit` and `load` make.

    The attribute `metadata` is a dict of what is known of it: `detector`, `classes`, `image_size`,
    `channels`, `calibration_images` and others, see docs/serving.md.
    """

    def __init__(self, client: LocalClient):
        self._client = client
        self.metadata: dict[str, Any] = client.metadata()

    def __repr__(self) -> str:
        known = self.metadata
        return f"<FittedDetector {known.get('detector', '')} of {', '.join(known['classes'])}>"

    def score(self, images: Images, pictures: bool = False) -> Scores:
        """Scores images of any sizes.

        Files are read as by `capsad score`: folders with all that is below them, and every format
        that it reads. A warning names those that cannot be read, and those that are ignored.

        Args:
            images: uint8 array, shape (N, H, W) or (N, H, W, K), with K as in training; a list of
                uint8 arrays (H, W) or (H, W, K) of different sizes; or the path of a file or
                folder, or a list of such paths.
            pictures: whether `anomaly_map` and `reconstruction` are wanted, too, as far as the
                detector has them. They need much memory.

        Returns:
            The scores, in the order of the images. `anomaly_score`, float32 (N,), is in [0, 1),
            and high = anomalous; raw scores are high = normal.

        Raises:
            UserError: if these are no such images, or none of the files can be read.
        """
        client = self._client.with_pictures(pictures)
        paths = as_paths(images)
        if paths is not None:
            return _score_paths(client, paths)
        groups = list(by_shape(images, self.metadata["channels"]))
        outputs = _joined([client.score_arrays(group) for group in groups])
        return Scores([str(number) for number in range(sum(map(len, groups)))], outputs, {}, [])

    @property
    def scorer(self) -> Any:
        """The `keras.Model` from uint8 images to named scores, of a detector that `fit` made.

        Raises:
            AttributeError: if the detector was loaded.
        """
        if not isinstance(self._client, ScorerClient):
            raise AttributeError("A loaded detector is a SavedModel and has no Keras model.")
        return self._client.scorer

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes a detector that `fit` made as a SavedModel, for `load` and TensorFlow Serving.

        Args:
            folder: new folder. TensorFlow Serving wants a number for its name.

        Raises:
            UserError: if something is there already, or the detector was loaded.
        """
        if not isinstance(self._client, ScorerClient):
            raise UserError("A loaded detector is saved already: copy its folder.")
        if os.path.exists(folder):
            raise UserError(f"{os.fspath(folder)} exists already: give a new folder.")
        self._client.save(os.fspath(folder))


def load(folder_or_saved_model: str | os.PathLike[str]) -> FittedDetector:
    """Loads a detector that was pushed by a run, or written by `FittedDetector.save`.

    Args:
        folder_or_saved_model: a run's output folder, its `serving` folder, of both of which the
            newest version is taken, or the folder of one version.

    Raises:
        UserError: if there is no model, or if it is damaged or not one of ours.
    """
    return FittedDetector(SavedModelClient(newest_version(os.fspath(folder_or_saved_model))))


def fit(
    images: np.ndarray,
    labels: Sequence | np.ndarray | None = None,
    detector: str = "capsnet",
    **settings: Any,
) -> FittedDetector:
    """Trains and calibrates a detector on normal images in memory.

    A fifth of the different images of each class is kept for calibration, and a tenth is watched in
    training. A hash of an image's content and of the setting `seed` tells which ones, so equal
    images stay together, and the order of the images plays no part.

    Args:
        images: uint8 array, shape (N, H, W) or (N, H, W, K), where K is 1 or 3, with at least 10
            different images of each class.
        labels: class of each image, N ints or texts; `None`: all are of one class. -1 marks an
            anomaly, which is not used.
        detector: name of the detector, see `capsad.detectors`.
        **settings: settings of the detector in place of its defaults, such as `epochs=5`, see
            `capsad detectors`; and `seed`, which is 0 by default.

    Raises:
        UserError: if images or labels do not have this form, if they do not suit the detector, or
            if the detector or a setting is unknown.
    """
    made = detectors.get(detector, **settings)
    images = as_images(images)
    names, numbers = _classes(labels, len(images))
    (places,) = np.nonzero(numbers != ANOMALY_LABEL)
    images, numbers = images[places], numbers[places]
    splits = split_normal(images, numbers, names, made.seed)
    height, width, channels = image_shape(images)
    made.check_image_size((height, width))
    made.check_weights((height, width, channels))
    train, watched, kept = (splits == split for split in (TRAIN, EVAL, CALIBRATION))
    scorer = made.fit(
        images[train],
        numbers[train],
        validation=(images[watched], numbers[watched]),
        calibration=images[kept],
    )
    for note in made.notes:
        warnings.warn(note, stacklevel=2)
    about = {
        "detector": detector,
        "settings": {name: value for name, value in settings.items() if name != "seed"},
        "seed": made.seed,
        "calibrated_score": made.calibrated_score,
    }
    # An image is named by its place in `images` as they were given.
    image_names = [str(place) for place in places[train]]
    return FittedDetector(ScorerClient(scorer, (height, width), names, image_names, about))


def _classes(labels: Any, count: int) -> tuple[list[str], np.ndarray]:
    """Names of the normal classes, and the label of each image, int (N,), -1 for an anomaly."""
    given = np.zeros(count, int) if labels is None else np.asarray(labels)
    if given.shape != (count,):
        raise UserError(f"{count} images need {count} labels, not an array of {given.shape}.")
    if given.dtype.kind == "O" and all(isinstance(label, str) for label in given):
        given = given.astype(str)
    if given.dtype.kind == "f" and (given == np.round(given)).all():  # NaN is not equal to itself.
        given = given.astype(int)
    if given.dtype.kind not in "iuU":
        raise UserError(
            "Labels must be whole numbers or texts, without NaN, and -1 for an anomaly, not "
            f"{given.dtype}."
        )
    is_anomaly = given.astype(str) == str(ANOMALY_LABEL)
    if is_anomaly.all():
        raise UserError("All labels are -1, which marks an anomaly: give normal images, too.")
    numbers = np.full(count, ANOMALY_LABEL)
    classes, numbers[~is_anomaly] = np.unique(given[~is_anomaly], return_inverse=True)
    return ["normal"] if labels is None else [str(name) for name in classes], numbers


def _score_paths(client: LocalClient, paths: Sequence[str]) -> Scores:
    table, unreadable = Table(), {}
    names: list[str] = []
    outputs = []
    for result in score_files(client, find_images(paths, table), table):
        if isinstance(result, Unreadable):
            unreadable[result.name] = result.reason
        else:
            names += result.names
            outputs.append(result.outputs)
    told = [f"{name}: {reason}" for name, reason in unreadable.items()] + table.lines()
    if not outputs:
        raise UserError(f"No image was scored in {', '.join(paths)}. {'; '.join(told)}")
    if told:
        warnings.warn("; ".join(told), stacklevel=3)
    return Scores(names, _joined(outputs), unreadable, table.lines())


def _joined(outputs: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}
