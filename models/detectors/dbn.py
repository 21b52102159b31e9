"""Deep belief network as an anomaly detector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.detectors.base import class_probabilities
from models.detectors.pixels import PixelDetector
from models.detectors.settings import setting
from models.errors import UserError
from models.inference import outputs_on
from models.progress import report

if TYPE_CHECKING:
    import keras


@dataclass(kw_only=True)
class DbnDetector(PixelDetector):
    """Scores images by the error of a deterministic reconstruction (`re`).

    The reconstruction goes up through all layers and down again. The layers are restricted
    Boltzmann machines (scikit-learn's, with persistent contrastive divergence), which are trained
    one after the other. The labels are used only for `class_probabilities`, which come from the
    distances to the class means in the uppermost layer. A killed training starts again from the
    beginning.

    Reference:
        arXiv 1907.06312, section 4; Hinton, Osindero, Teh 2006, A fast learning algorithm for
        deep belief nets.
    """

    name: ClassVar[str] = "dbn"
    title: ClassVar[str] = "Deep belief network"
    reference: ClassVar[str] = "arXiv 1907.06312"
    scores: ClassVar[tuple[str, ...]] = ("re",)
    learns_classes: ClassVar[bool] = False
    least_classes: ClassVar[int] = 1

    epochs: int = setting(20, "Number of passes over the training images, for each layer.")
    batch_size: int = setting(100, "Number of images in each training step.")
    learning_rate: float = setting(0.03, "Learning rate of contrastive divergence.")
    units: tuple[int, ...] = setting((500, 500, 500), "Number of units in each layer.")

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Pretrains layer by layer, then unrolls the layers into an autoencoder."""
        import keras

        from models import scores
        from models.layers import ClassCentres, standardisation

        shape = self.seen_shape(images)
        pixels = keras.Input(shape)
        visible = pixels
        if self.standardise:  # The units of the lowest layer need values in [0, 1].
            visible = keras.ops.sigmoid(standardisation()(pixels))
        prepare = keras.Model(pixels, visible, name="visible")
        prepared = outputs_on(prepare, self.seen(images))
        machines, features = self._pretrain(prepared.reshape(len(images), -1))
        centres = ClassCentres(int(labels.max()) + 1, name="centres")
        centres.build((None, features.shape[1]))
        centres.place(features, labels)

        inputs, scaled = self.scorer_input(images)
        scaled = prepare(scaled)
        hidden = keras.layers.Flatten()(scaled)
        for machine in machines:
            hidden = _dense(hidden, machine.components_.T, machine.intercept_hidden_)
        distances = centres(hidden)
        for machine in reversed(machines):
            hidden = _dense(hidden, machine.components_, machine.intercept_visible_)
        reconstruction = keras.layers.Reshape(shape)(hidden)
        return keras.Model(
            inputs,
            {
                "re": scores.reconstruction_error(scaled, reconstruction),
                "class_probabilities": class_probabilities(-distances),
                "reconstruction": reconstruction,
            },
            name=self.name,
        )

    def _pretrain(self, visible: np.ndarray) -> tuple[list[Any], np.ndarray]:
        from sklearn.neural_network import BernoulliRBM

        generator = np.random.default_rng(self.seed)
        batch_size = min(self.batch_size, len(visible))
        machines = []
        for index, units in enumerate(self.units):
            machine = BernoulliRBM(
                units,
                learning_rate=self.learning_rate,
                batch_size=batch_size,
                random_state=np.random.RandomState(generator.integers(2**31)),
            )
            # As in Hinton 2010, A practical guide to training restricted Boltzmann machines, 8.1.
            shares = visible.mean(axis=0, dtype="float64").clip(0.01, 0.99)
            machine.intercept_visible_ = np.log(shares / (1 - shares))
            for epoch in range(self.epochs):
                # All batches have the same size, because the number of persistent chains is fixed.
                count = len(visible) // batch_size
                order = generator.permutation(len(visible))[: count * batch_size]
                for batch in np.array_split(order, count):
                    machine.partial_fit(visible[batch])
                error = _error(machine, visible[:1000])
                self.history.setdefault(f"layer_{index + 1}_error", []).append(error)
                if not math.isfinite(error):
                    raise UserError(
                        f"Training diverged: the error of layer {index + 1} is not finite after "
                        f"epoch {epoch + 1}. Lower the learning rate.",
                        "learning_rate",
                    )
                report(
                    "training",
                    index * self.epochs + epoch + 1,
                    len(self.units) * self.epochs,
                    f"Layer {index + 1} of {len(self.units)}, epoch {epoch + 1} of {self.epochs}: "
                    f"reconstruction error {error:.4f}",
                )
            machines.append(machine)
            visible = machine.transform(visible).astype("float32")
        return machines, visible


def _dense(inputs: keras.KerasTensor, kernel: np.ndarray, bias: np.ndarray) -> keras.KerasTensor:
    import keras

    layer = keras.layers.Dense(len(bias), activation="sigmoid")
    outputs = layer(inputs)
    layer.set_weights([kernel, bias])
    return outputs


def _error(machine: Any, visible: np.ndarray) -> float:
    """Mean squared error of a reconstruction that goes up and down once."""
    from scipy.special import expit

    hidden = expit(visible @ machine.components_.T + machine.intercept_hidden_)
    again = expit(hidden @ machine.components_ + machine.intercept_visible_)
    return float(np.mean((visible - again) ** 2))
