"""Tools for training: seeded batches, a backup that survives a kill, and a stop at NaN."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from models.augmentation import Augmentation, centre_crops
from models.device import has_accelerator
from models.errors import UserError
from models.files import whole_folder
from models.progress import report

if TYPE_CHECKING:
    from models.features import Features


def use_xla(replicas: int) -> bool:
    """Tells whether to compile with XLA.

    JAX always uses XLA. TensorFlow does not use it on a CPU, where it is ten times slower, or for
    several replicas, which it cannot compile.
    """
    backend = keras.backend.backend()
    return backend == "jax" or (backend == "tensorflow" and replicas == 1 and has_accelerator())


def count_replicas(model: keras.Model) -> int:
    """Returns how many copies of `model` share a training step: 1 without a TensorFlow strategy."""
    strategy = getattr(model, "distribute_strategy", None)
    return 1 if strategy is None else strategy.num_replicas_in_sync


def create_variables(model: keras.Model, batch: tuple[Any, Any]) -> None:
    """Creates the variables of the optimizer and the metrics of a compiled `model`.

    Without this, Keras creates them while TensorFlow traces the first step, and TensorFlow then
    traces it once more. On other backends, and for several replicas, Keras creates them in time.

    Args:
        model: model that has all its weights.
        batch: inputs and targets of any batch.
    """
    if keras.backend.backend() != "tensorflow" or count_replicas(model) > 1:
        return
    inputs, targets = batch
    outputs = model(inputs)
    model.optimizer.build(model.trainable_variables)
    model.compute_loss(inputs, targets, outputs)
    model.compute_metrics(inputs, targets, outputs)
    model.reset_metrics()


def learning_rates(
    schedule: str, highest: float, steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Makes a schedule with a learning rate for each of `steps` training steps.

    Args:
        schedule: `linear` falls from `highest` to zero. `one_cycle` rises to `highest` within the
            first fifth of the steps, then falls to zero along a cosine.
        highest: the largest learning rate.
        steps: number of steps of the whole training.

    Raises:
        UserError: if there is no such schedule.

    Reference:
        Smith, Topin 2017, Super-convergence, arXiv 1708.07120, for `one_cycle`.
    """
    if schedule == "linear":
        return keras.optimizers.schedules.PolynomialDecay(highest, steps, 0.0)
    if schedule == "one_cycle":
        rising = max(1, round(steps / 5))
        return keras.optimizers.schedules.CosineDecay(
            highest / 10, max(1, steps - rising), warmup_target=highest, warmup_steps=rising
        )
    raise UserError(f"schedule must be auto, linear or one_cycle, not '{schedule}'.", "schedule")


class Collapsed(Exception):
    """Raised if a network learns nothing, and another training may help. It says so in a sentence.

    Args:
        message: the sentence.
    """


class CollapseWatch(keras.callbacks.Callback):
    """Looks once, after the first fifth of the epochs, whether a network has learned anything.

    Args:
        labels: classes that the network learns to tell apart, int (N,).
        epochs: number of epochs of the training. There is no look if it is below 3.
        answers_per_class: number of equally frequent answers that are learned for each class.
        found: function of the sentence that is called if the accuracy is that of guessing.
    """

    def __init__(
        self, labels: np.ndarray, epochs: int, answers_per_class: int, found: Callable[[str], None]
    ):
        super().__init__()
        self.epochs = epochs
        self.epoch = max(3, math.ceil(epochs / 5))
        self.guessed = np.bincount(labels).max() / len(labels) / answers_per_class
        self.images = len(labels)
        self.found = found

    def look(self, history: Mapping[str, Sequence[float]]) -> None:
        """Calls `found` if `history`, which may be longer, tells of a collapse."""
        name = next((name for name in history if name.endswith("accuracy")), "")
        if len(history.get(name, ())) < self.epoch:
            return
        reached = history[name][self.epoch - 1]
        uncertainty = 2 * math.sqrt(self.guessed * (1 - self.guessed) / self.images)
        if reached <= self.guessed + uncertainty:
            self.found(
                f"After epoch {self.epoch} of {self.epochs} the accuracy on the training images "
                f"was {reached:.2f}, which is that of guessing: the network had learned nothing."
            )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Looks, if it is time."""
        if epoch + 1 == self.epoch:
            self.look({name: [value] * self.epoch for name, value in (logs or {}).items()})


class ReportProgress(keras.callbacks.Callback):
    """Tells how far training is, see `models.progress`.

    Args:
        epochs: number of epochs of the whole training.
    """

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Remembers the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Tells the step."""
        report("training", self.epoch + (batch + 1) / self.params["steps"], self.epochs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Tells what the epoch has reached."""
        measured = ", ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items())
        line = f"Epoch {epoch + 1} of {self.epochs}: {measured}"
        report("training", epoch + 1, self.epochs, line)


class Batches(keras.utils.PyDataset):
    """Batches of images in an order that depends only on the seed and the epoch.

    Therefore a training that is resumed at epoch k sees the same batches as an uninterrupted one.

    Args:
        images: uint8 array, shape (N, H, W, K).
        labels: int array, shape (N,).
        batch_size: number of images in each batch. The last batch may be smaller.
        crop_size: height and width of the part of each image that the network sees.
        to_batch: function from float32 images in [0, 1], shape (B, *crop_size, K), and labels (B,)
            to the pair `(x, y)` that Keras takes.
        seed: seed of the order and the crops. `None`, for validation, keeps the order of the images
            and cuts out their centres.
        augmentation: random changes of the images, if there is a seed.
        first_epoch: number of epochs that were done before, if training is resumed.
        replicas: number of equal parts that each batch must have. `batch_size` is rounded up to a
            multiple of it, and fewer than `replicas` images may come twice in an epoch.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        crop_size: tuple[int, int],
        to_batch: Callable,
        seed: int | None = None,
        augmentation: Augmentation | None = None,
        first_epoch: int = 0,
        replicas: int = 1,
    ):
        super().__init__()
        self.images = images
        self.labels = labels
        self.batch_size = _round_up(batch_size, replicas)
        self.crop_size = crop_size
        self.to_batch = to_batch
        self.seed = seed
        self.augmentation = augmentation or Augmentation()
        self.epoch = first_epoch
        self.replicas = replicas
        self._start_epoch()

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def __getitem__(self, index: int) -> Any:
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        batch = self.to_batch(self._read(chosen, index), self.labels[chosen])
        # TensorFlow uses the memory of the arrays and, under a distribution strategy, writes
        # results into it. An array that is both input and target would change while it is in use.
        return keras.tree.map_structure(np.copy, batch)

    def _read(self, chosen: np.ndarray, index: int) -> Any:
        """The images at the places `chosen`, as batch number `index` of the epoch."""
        images = self.images[chosen]
        if self.seed is None:
            images = centre_crops(images, self.crop_size)
        else:
            generator = np.random.default_rng([self.seed, self.epoch, index])
            images = self.augmentation(images, self.crop_size, generator)
        return images.astype("float32") / 255.0

    def on_epoch_end(self) -> None:
        """Draws the order of the images for the next epoch."""
        self.epoch += 1
        self._start_epoch()

    def _start_epoch(self) -> None:
        order = np.arange(len(self.images))
        if self.seed is not None:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        self.order = np.resize(order, _round_up(len(order), self.replicas))


class FeatureBatches(Batches):
    """Batches of features that were computed before, see `models.features`.

    Args:
        features: the features.
        labels: int array, shape (N,).
        kinds: the kinds of features that are read.
        to_batch: function from a dict of float32 features, each (B, ...), and labels (B,) to the
            pair `(x, y)` that Keras takes.
        **settings: other arguments of `Batches`.
    """

    def __init__(
        self,
        features: Features,
        labels: np.ndarray,
        kinds: Sequence[str],
        to_batch: Callable,
        **settings: Any,
    ):
        self.features = features
        self.kinds = kinds
        super().__init__(features.rows, labels, crop_size=(0, 0), to_batch=to_batch, **settings)

    def _read(self, chosen: np.ndarray, index: int) -> Any:
        del index  # Copies of the images are features of their own.
        batch = self.features[chosen]
        return {kind: batch.read(kind) for kind in self.kinds}


class Backup(keras.callbacks.Callback):
    """Keeps the state of training after each epoch and stops at a loss that is not finite.

    There are two differences to `keras.callbacks.BackupAndRestore`. A kill while the state is
    written leaves the previous state whole, because each state is written under a temporary name
    and then renamed. The history continues after a kill.

    It also stops early, which needs the state, too, to be the same after a kill.

    Args:
        folder: folder of the state, which is created when it is needed. `None` keeps no state.
        patience: number of epochs without a lower validation loss after which training stops. The
            weights with the lowest one are taken in the end. `None` trains all epochs.

    Raises:
        UserError: if the loss becomes NaN or infinite. The last good weights are kept.
    """

    _STATE = "state.npz"  # not HDF5, which crashes the process when the disk is full

    def __init__(self, folder: str | None, patience: int | None = None):
        super().__init__()
        self.folder = Path(folder) if folder else None
        self.patience = patience
        self.history: dict[str, list[float]] = {}
        self.notes: list[str] = []
        self._best: list[np.ndarray] | None = None
        self.seconds = 0.0  # duration of training, including the time before a kill

    def restore(self, model: keras.Model) -> int:
        """Loads the newest state, if any, into the compiled `model`, and returns its epoch.

        If the state is damaged, it is removed with a note, and training starts afresh.
        """
        states = self._states()
        if not states:
            return 0
        epoch, folder = states[-1]
        model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        try:
            values = self._read(folder, variables)
            kept = json.loads((folder / "history.json").read_text())
            best_folder = dict(states).get(self._best_epoch(kept["history"]) or epoch, folder)
            best = values if best_folder == folder else self._read(best_folder, variables)
            self.history, self.seconds = kept["history"], kept["seconds"]
        # Whatever is damaged: the archive, an array, or the text.
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
            self.notes.append(
                f"The state of training in {folder} was damaged, so training started afresh."
            )
            for _, damaged in states:
                shutil.rmtree(damaged)
            return 0
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        if self.patience is not None:
            self._best = best[: len(model.variables)]
        return epoch

    def _read(self, folder: Path, variables: list[keras.Variable]) -> list[np.ndarray]:
        with np.load(folder / self._STATE) as stored:
            values = [stored[name] for name in stored.files]
        for variable, value in zip(variables, values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise ValueError(f"{variable.path} has another shape.")
        return values

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Starts the clock."""
        self._started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stops at a loss that is not finite."""
        self._check(f"batch {batch + 1} of epoch {len(self.history.get('loss', ())) + 1}", logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes weights, optimizer and history, and then deletes the previous state."""
        self._check(f"the end of epoch {epoch + 1}", logs)
        self.seconds += time.monotonic() - self._started
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        best = self._best_epoch(self.history)
        if best == epoch + 1:
            self._best = [keras.ops.convert_to_numpy(value) for value in self.model.variables]
        if self.is_done:
            self.model.stop_training = True
        if self.folder is None:
            return
        values = (keras.ops.convert_to_numpy(variable) for variable in _variables(self.model))
        state = io.BytesIO()
        np.savez(state, *values)
        kept = {"history": self.history, "seconds": self.seconds}
        previous = self._states()
        with whole_folder(self.folder / f"epoch-{epoch + 1:05d}") as folder:
            (folder / self._STATE).write_bytes(state.getbuffer())
            (folder / "history.json").write_text(json.dumps(kept))
        for number, folder in previous:
            if number != best:
                shutil.rmtree(folder)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Takes the best weights, if training may stop early."""
        if self._best is not None:
            for variable, value in zip(self.model.variables, self._best, strict=True):
                variable.assign(value)

    @property
    def is_done(self) -> bool:
        """Whether training stopped early, or would go on for nothing."""
        best = self._best_epoch(self.history)
        if self.patience is None or best is None:
            return False
        return len(self.history["val_loss"]) - best >= self.patience

    def _best_epoch(self, history: Mapping[str, Sequence[float]]) -> int | None:
        """Number of the epoch with the lowest validation loss, if training may stop early."""
        losses = history.get("val_loss", [])
        return None if self.patience is None or not losses else int(np.argmin(losses)) + 1

    def _check(self, where: str, logs: Mapping[str, float] | None) -> None:
        losses = [value for name, value in (logs or {}).items() if name.endswith("loss")]
        if all(map(math.isfinite, losses)):
            return
        states = self._states()
        kept = "no epoch was finished"
        if states:
            kept = f"the weights of epoch {states[-1][0]} are kept in {states[-1][1]}"
        raise UserError(
            f"Training diverged: the loss is not finite at {where}; {kept}. Lower the learning "
            "rate.",
            "learning_rate",
        )

    def _states(self) -> list[tuple[int, Path]]:
        if self.folder is None:
            return []
        matches = [
            (re.fullmatch(r"epoch-(\d+)", path.name), path) for path in self.folder.glob("epoch-*")
        ]
        return sorted((int(match[1]), path) for match, path in matches if match)


def _round_up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]
