"""What detectors share that train a network by gradient descent."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.detectors.base import Detector, setting

if TYPE_CHECKING:
    import keras


@dataclass(kw_only=True)
class NetworkDetector(Detector):
    """Adds epochs, batches and a learning rate, and the training itself."""

    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.001}

    epochs: int = setting(20, "Passes over the training images.")
    batch_size: int = setting(100, "Images a training step.")
    learning_rate: float | None = setting(
        None, "Adam's highest; none: what was found best for the schedule."
    )
    schedule: str = setting(
        "auto",
        "Learning rate: linear (falls to zero), one_cycle (rises, then falls), or auto: one_cycle "
        "below 20 epochs.",
    )

    def fit_network(
        self,
        model: keras.Model,
        to_batch: Callable,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
        *,
        crop_size: tuple[int, int] | None = None,
        shift: int = 0,
        weight_decay: float | None = None,
        **compiled,
    ) -> None:
        """Compiles with Adam and trains; goes on after the last whole epoch of a killed training.

        Args:
            model: to be trained.
            to_batch: from images, float32 (B, H, W, K) in [0, 1], and labels (B,) to `(x, y)`.
            images: uint8 array, shape (N, H, W, K).
            labels: int array, shape (N,).
            validation: images and labels of the same kind.
            callbacks: of Keras.
            crop_size: height and width of what the network sees; `None`: all.
            shift: pixels by which images are shifted at random.
            weight_decay: Adam's, decoupled.
            **compiled: losses and metrics, for `compile`.

        Raises:
            UserError: if training diverges.
        """
        import keras

        from models.training import Backup, Batches, count_replicas, learning_rates, use_xla

        crop_size = crop_size or images.shape[1:3]
        schedule = self.schedule
        if schedule == "auto":
            schedule = "one_cycle" if self.epochs < 20 else "linear"
        rate = self.learning_rate
        if rate is None:
            rate = self.default_rates.get(schedule, 0.001)
        replicas = count_replicas(model)
        batches = functools.partial(
            Batches,
            batch_size=self.batch_size,
            crop_size=crop_size,
            to_batch=to_batch,
            replicas=replicas,
        )
        steps = len(batches(images, labels)) * self.epochs
        model.compile(
            keras.optimizers.Adam(learning_rates(schedule, rate, steps), weight_decay=weight_decay),
            jit_compile=use_xla(replicas),
            **compiled,
        )
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


def outputs_on(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """The output (N, D) of `network`, which takes float images, for uint8 images (N, H, W, K)."""
    return in_batches(lambda batch: network(batch.astype("float32") / 255), images)


def in_batches(function: Callable, images: np.ndarray) -> Any:
    """The output of `function` on images (N, ...), a few at a time: arrays, as it structures them.

    Unlike Keras's `predict` it does without compilation, and within any distribution strategy.
    """
    import keras

    batches = [function(images[start : start + 500]) for start in range(0, len(images), 500)]
    return keras.tree.map_structure(
        lambda *parts: np.concatenate([keras.ops.convert_to_numpy(part) for part in parts]),
        *batches,
    )
