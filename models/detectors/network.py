"""Base class of the detectors that train a network by gradient descent."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.detectors.pixels import PixelDetector
from models.detectors.settings import setting

if TYPE_CHECKING:
    import keras

    from models.augmentation import Augmentation
    from models.features import Features


@dataclass(kw_only=True)
class NetworkDetector(PixelDetector):
    """Adds settings for epochs, batches, augmentation and Adam, and a method for training."""

    # docs/results/learning-rates.md shows how those of one_cycle were chosen for each.
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
        choices=("auto", "linear", "one_cycle"),
    )
    weight_decay: float | None = setting(None, "Decoupled weight decay of Adam.", least=0)
    patience: int | None = setting(
        None,
        "Number of epochs without a lower loss on `eval` after which training stops. The best "
        "weights are taken. `None` trains all epochs.",
    )
    shift: int = setting(
        0,
        "Largest random shift of training images, in pixels (Sabour et al.: 2 for MNIST).",
        least=0,
    )
    flip: bool = setting(
        False,
        "Whether half of the training images are mirrored, left to right: only for images that are "
        "as normal mirrored.",
    )
    brightness: float = setting(
        0.0,
        "Largest random change of the brightness of training images, as a share of white.",
        least=0,
        most=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.restarts = False  # whether training stops when the network learns nothing

    @property
    def augmentation(self) -> Augmentation:
        """Random changes of training images."""
        from models.augmentation import Augmentation

        return Augmentation(self.shift, self.flip, self.brightness)

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
        answers_per_class: int = 1,
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
            answers_per_class: number of equally frequent answers to learn for each class.
            **compiled: losses and metrics, which are passed to `compile`.

        Raises:
            UserError: if training diverges.
            Collapsed: if the network learns nothing, and `restarts` is true.
        """
        from models.training import (
            Backup,
            Batches,
            CollapseWatch,
            FeatureBatches,
            ReportProgress,
            count_replicas,
            create_variables,
            use_xla,
        )

        replicas = count_replicas(model)
        make = (
            functools.partial(Batches, crop_size=self.seen_shape(images)[:2])
            if isinstance(images, np.ndarray)
            else functools.partial(FeatureBatches, kinds=kinds)
        )
        batches = functools.partial(
            make, batch_size=self.batch_size, to_batch=to_batch, replicas=replicas
        )
        in_order = batches(images, labels)
        optimizer = self._optimizer(len(in_order))
        model.compile(optimizer, jit_compile=use_xla(replicas), **compiled)
        create_variables(model, in_order[0])
        backup = Backup(self.backup_dir, self.patience if validation else None)
        first_epoch = backup.restore(model)
        self.seconds = backup.seconds
        self.tell(*backup.notes)
        watch = CollapseWatch(labels, self.epochs, answers_per_class, self._tell_collapse)
        watch.look(backup.history)
        model.fit(
            batches(
                images,
                labels,
                seed=self.seed,
                augmentation=self.augmentation,
                first_epoch=first_epoch,
            ),
            validation_data=validation and batches(*validation),
            epochs=first_epoch if backup.is_done else self.epochs,
            initial_epoch=first_epoch,
            callbacks=[*callbacks, backup, watch, ReportProgress(self.epochs)],
            shuffle=False,
            verbose=0,
        )
        self.history = backup.history

    def _tell_collapse(self, message: str) -> None:
        from models.training import Collapsed

        self.tell(message)
        if self.restarts:
            raise Collapsed(message)

    def rate(self) -> float:
        """The largest learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return self.default_rates.get(self._schedule(), 0.001)

    def _schedule(self) -> str:
        if self.schedule == "auto":
            return "one_cycle" if self.epochs < 20 else "linear"
        return self.schedule

    def _optimizer(self, batches: int) -> keras.optimizers.Optimizer:
        """Creates Adam with the schedule of the learning rate, for `batches` in each epoch."""
        import keras

        from models.training import learning_rates

        rates = learning_rates(self._schedule(), self.rate(), batches * self.epochs)
        return keras.optimizers.Adam(rates, weight_decay=self.weight_decay)
