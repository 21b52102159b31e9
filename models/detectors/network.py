"""Base class of the detectors that train a network by gradient descent."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.detectors.base import Detector, image_shape, setting

if TYPE_CHECKING:
    import keras

    from models.features import Features


@dataclass(kw_only=True)
class NetworkDetector(Detector):
    """Adds settings for epochs, batches and the learning rate, and a method for training."""

    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.001}

    epochs: int = setting(20, "Number of passes over the training images.")
    batch_size: int = setting(100, "Number of images in each training step.")
    learning_rate: float | None = setting(
        None, "Largest learning rate of Adam. `None` means the best known rate for the schedule."
    )
    schedule: str = setting(
        "auto",
        "Schedule of the learning rate: linear (falls to zero), one_cycle (rises, then falls), or "
        "auto (one_cycle below 20 epochs, else linear).",
    )

    def fit_network(
        self,
        model: keras.Model,
        to_batch: Callable,
        images: np.ndarray | Features,
        labels: np.ndarray,
        validation: tuple[np.ndarray | Features, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
        *,
        kinds: tuple[str, ...] = (),
        crop_size: tuple[int, int] | None = None,
        shift: int = 0,
        weight_decay: float | None = None,
        **compiled: Any,
    ) -> None:
        """Compiles the model with Adam and trains it.

        After a kill, training continues after the last complete epoch.

        Args:
            model: model that is trained.
            to_batch: function from images, float32 (B, H, W, K) in [0, 1], and labels (B,) to the
                pair `(x, y)` that Keras takes.
            images: uint8 array, shape (N, H, W, K), or features of images.
            labels: int array, shape (N,).
            validation: images or features, and labels, of the same kind.
            callbacks: Keras callbacks for training.
            kinds: kinds of features that are read; `to_batch` takes a dict of them.
            crop_size: height and width of the part of each image that the network sees. `None`
                means the whole image.
            shift: largest random shift of an image, in pixels.
            weight_decay: decoupled weight decay of Adam.
            **compiled: losses and metrics, which are passed to `compile`.

        Raises:
            UserError: if training diverges.
        """
        from models.training import Backup, Batches, FeatureBatches, count_replicas, use_xla

        replicas = count_replicas(model)
        make = (
            functools.partial(Batches, crop_size=crop_size or image_shape(images)[:2])
            if isinstance(images, np.ndarray)
            else functools.partial(FeatureBatches, kinds=kinds)
        )
        batches = functools.partial(
            make, batch_size=self.batch_size, to_batch=to_batch, replicas=replicas
        )
        optimizer = self._optimizer(len(batches(images, labels)), weight_decay)
        model.compile(optimizer, jit_compile=use_xla(replicas), **compiled)
        backup = Backup(self.backup_dir)
        first_epoch = backup.restore(model)
        self.seconds = backup.seconds
        model.fit(
            batches(images, labels, seed=self.seed, shift=shift, first_epoch=first_epoch),
            validation_data=validation and batches(*validation),
            epochs=self.epochs,
            initial_epoch=first_epoch,
            callbacks=[*callbacks, backup],
            shuffle=False,
            verbose=self.verbose,
        )
        self.history = backup.history

    def _optimizer(self, batches: int, weight_decay: float | None) -> keras.optimizers.Optimizer:
        """Creates Adam with the schedule of the learning rate, for `batches` in each epoch."""
        import keras

        from models.training import learning_rates

        schedule = self.schedule
        if schedule == "auto":
            schedule = "one_cycle" if self.epochs < 20 else "linear"
        rate = self.learning_rate
        if rate is None:
            rate = self.default_rates.get(schedule, 0.001)
        return keras.optimizers.Adam(
            learning_rates(schedule, rate, batches * self.epochs), weight_decay=weight_decay
        )
