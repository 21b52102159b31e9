"""The interface that all detectors have."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models import progress
from models.detectors.settings import check_settings, setting
from models.errors import UserError
from models.inference import in_batches
from models.sampling import balance

if TYPE_CHECKING:  # Keras is loaded only for training, so that listing detectors is fast
    import keras


def image_shape(images: np.ndarray) -> tuple[int, int, int]:
    """Returns height, width and channels (H, W, K) of images (N, H, W, K)."""
    _, height, width, channels = images.shape
    return height, width, channels


def class_probabilities(logits: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the softmax of logits (B, C): 1 if there is one class, where Keras would warn."""
    from keras import ops

    return ops.softmax(logits, axis=-1) if logits.shape[-1] > 1 else ops.ones_like(logits)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds all random numbers, and gives those of the caller back in the end.

    Otherwise a caller who draws at random between two trainings would draw the same each time.
    """
    import keras

    of_python, of_numpy = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


@dataclass(kw_only=True)
class Detector(abc.ABC):
    """Base class of detectors: `fit` makes a Keras model from images to named scores.

    A subclass declares its settings as fields, names its raw scores and implements `train`. After
    `fit`, the attribute `history` is a dict of lists with one value for each epoch, and `notes`
    has sentences on the training that the user must know. The attribute `seconds` is the duration
    of training, including the time before a kill. In `train`, `places`
    has the number, in the images given to `fit`, of each image given to `train`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    scores: ClassVar[tuple[str, ...]]
    """Names of the raw scores. The first is calibrated if the user names no other one."""
    least_classes: ClassVar[int] = 2
    """The smallest number of normal classes that the detector can be trained on."""
    learns_classes: ClassVar[bool] = True
    """Whether training uses the labels of several normal classes to tell them apart."""

    seed: int = setting(
        0, "Seed of the weights, the order of images and the augmentation.", least=0, most=2**32 - 1
    )
    backup_dir: str | None = setting(
        None, "Folder that keeps the state of training, in case of a kill."
    )
    features_dir: str | None = setting(
        None, "Folder that keeps the features of images, for detectors with a backbone."
    )

    def __post_init__(self) -> None:
        check_settings(self)
        self.history: dict[str, list[float]] = {}
        self.notes: list[str] = []
        self.seconds = 0.0
        self.places = np.zeros(0, int)

    @property
    @abc.abstractmethod
    def epochs(self) -> int:
        """The number of passes over the training images, which is a setting of each subclass."""

    @property
    def calibrated_score(self) -> str:
        """The score that `anomaly_score` calibrates: a setting of detectors with several scores."""
        return self.scores[0]

    def tell(self, *notes: str) -> None:
        """Adds sentences to `notes`, and tells them to those who wait for the training."""
        for note in notes:
            self.notes.append(note)
            progress.tell(f"Warning: {note}")

    @property
    def finished_epochs(self) -> int:
        """Number of passes over the training images that `fit` finished."""
        return max(map(len, self.history.values()), default=0)

    @classmethod
    def settings(cls) -> tuple[dataclasses.Field, ...]:
        """Returns the detector's own settings: fields with `name`, `default` and `metadata`."""
        common = {field.name for field in dataclasses.fields(Detector)}
        return tuple(field for field in dataclasses.fields(cls) if field.name not in common)

    def check_image_size(self, image_size: tuple[int, int]) -> None:  # noqa: B027
        """Raises a UserError if images of (height, width) do not suit the detector."""

    def check_weights(self, input_shape: tuple[int, int, int]) -> None:  # noqa: B027
        """Raises a UserError if weights that the detector starts from cannot be had.

        Args:
            input_shape: height, width and channels (H, W, K) of the images.
        """

    def fit(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        calibration: np.ndarray | None = None,
        callbacks: tuple[keras.callbacks.Callback, ...] = (),
    ) -> keras.Model:
        """Trains on normal images and returns the model that computes scores.

        Args:
            images: uint8 array, shape (N, H, W, K), where K is 1 or 3.
            labels: int array, shape (N,), values 0 to C - 1. Every class is present.
            validation: normal images and labels of the same kind, evaluated during training.
            calibration: uint8 array of normal images for calibration, shape (n, H, W, K).
            callbacks: Keras callbacks for training.

        Returns:
            Model from uint8 images (B, H', W', K), for any H' and W', to a dict of float32 tensors:
            the raw normality scores, each (B,); `class_probabilities` (B, C); `reconstruction`
            (B, H, W, K) in [0, 1], `anomaly_map` (B, h, w) and `nearest_image` (B,), the number of
            the most similar image in `images`, int32, if the detector computes them; and
            `anomaly_score` (B,) in [0, 1), if `calibration` is given.

        Raises:
            UserError: if `images` or `labels` do not have this form.
        """
        self._check(images, labels, validation)
        import keras

        from models.calibration import calibrate
        from models.layers import TrimBatch

        started = time.monotonic()
        self.places = balance(labels)
        if len(self.places) > len(labels):
            images, labels = images[self.places], labels[self.places]
        with _seeded(self.seed):
            scorer = self.train(images, labels, validation, callbacks)
        self.seconds += time.monotonic() - started
        if calibration is not None:
            scores = self.raw_scores(scorer, calibration)
            scorer = calibrate(scorer, scores, self.calibrated_score)
        return keras.Model(
            scorer.input,
            {name: TrimBatch()(value, scorer.input) for name, value in scorer.output.items()},
            name=self.name,
        )

    @abc.abstractmethod
    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Trains and returns the model of raw scores. The arguments are those of `fit`."""

    def raw_scores(self, scorer: keras.Model, images: np.ndarray) -> np.ndarray:
        """Computes the score that is calibrated, float (N,), of uint8 images (N, H, W, K)."""
        import keras

        score = keras.Model(scorer.input, scorer.output[self.calibrated_score])
        return in_batches(score, images, 100)

    def _check(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
    ) -> None:
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
            raise UserError(
                "Training images must be uint8 of shape (N, H, W, 1 or 3), not "
                f"{images.dtype} {images.shape}."
            )
        if len(images) != len(labels) or not len(images):
            raise UserError(f"{len(images)} training images but {len(labels)} labels.")
        least = self.least_classes
        counts = np.bincount(labels, minlength=least) if labels.min() >= 0 else np.zeros(1)
        if not counts.all():
            raise UserError(
                f"Training labels must be 0 to C - 1, each present, with C at least {least}; found "
                f"{sorted(set(labels.tolist()))}. An anomaly (-1) is never trained on."
            )
        if validation is not None and not np.isin(validation[1], labels).all():
            raise UserError(
                f"Validation labels must be 0 to {labels.max()}, those of the training; found "
                f"{sorted(set(validation[1].tolist()))}. An anomaly (-1) is never validated on."
            )
