"""Deep support vector data description with one centre for each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models.detectors.base import class_probabilities
from models.detectors.network import NetworkDetector
from models.detectors.settings import setting
from models.inference import outputs_on

if TYPE_CHECKING:
    import keras

_LEAST_COMPONENT = 0.1  # of a centre, as in the code of Ruff et al.


@dataclass(kw_only=True)
class DeepSvddDetector(NetworkDetector):
    """Scores images by minus the squared distance to the nearest class centre (`distance`).

    The centre of each class is the mean of its features before training, except that components
    between -0.1 and 0.1 are set to the nearer of the two: with weights that are all 0, the network
    could reach a centre at 0. No layer has a bias and the boundary is not soft, so the network
    cannot map all images to a constant.

    Reference:
        Ruff et al. 2018, Deep one-class classification, ICML. One centre for each class is our
        own addition.
    """

    name: ClassVar[str] = "deep_svdd"
    title: ClassVar[str] = "Deep SVDD, one centre a class"
    reference: ClassVar[str] = "Ruff et al. 2018, ICML"
    scores: ClassVar[tuple[str, ...]] = ("distance",)
    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.01}
    learns_classes: ClassVar[bool] = False
    least_classes: ClassVar[int] = 1

    feature_dim: int = setting(32, "Dimension of the features.")
    weight_decay: float | None = setting(
        1e-4,
        "Decoupled weight decay of Adam. Ruff et al. penalise 1e-6 times the squared norm of the "
        "weights.",
        least=0,
    )

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Raises a UserError if images of (height, width) are too small."""
        from models.cnn import check_image_size

        check_image_size(self.seen_size(image_size))

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Moves the features of each class towards its centre."""
        import keras
        from keras import ops

        from models.layers import ClassCentres
        from models.losses import Value

        num_classes = int(labels.max()) + 1
        network = svdd_network(self.seen_shape(images), self.feature_dim, self.standardise)
        features = outputs_on(network, self.seen(images))
        centres = ClassCentres(num_classes, name="centres")
        pixels = keras.Input(self.seen_shape(images), name="images")
        target = keras.Input((num_classes,), name="target")
        distances = centres(network(pixels))
        centres.place(features, labels)
        centres.centres.assign(away_from_zero(ops.convert_to_numpy(centres.centres)))

        def to_batch(images, labels):
            target = np.eye(num_classes, dtype="float32")[labels]
            return {"images": images, "target": target}, np.zeros(len(images), "float32")

        self.fit_network(
            keras.Model({"images": pixels, "target": target}, ops.sum(distances * target, axis=-1)),
            to_batch,
            images,
            labels,
            validation,
            callbacks,
            loss=Value(),
        )
        inputs, scaled = self.scorer_input(images)
        distances = centres(network(scaled))
        return keras.Model(
            inputs,
            {
                "distance": -ops.min(distances, axis=-1),
                "class_probabilities": class_probabilities(-distances),
            },
            name=self.name,
        )


def away_from_zero(centres: np.ndarray) -> np.ndarray:
    """Sets components of centres (C, D) between -0.1 and 0.1 to the nearer one, and 0 to 0.1."""
    nearer = np.where(centres < 0, -_LEAST_COMPONENT, _LEAST_COMPONENT)
    return np.where(np.abs(centres) < _LEAST_COMPONENT, nearer, centres)


def svdd_network(
    input_shape: tuple[int, int, int], feature_dim: int, standardise: bool = False
) -> keras.Model:
    """Builds the network that computes features (B, feature_dim).

    It has two stages of 5x5 convolution, normalisation without offset, leaky ReLU and max-pooling,
    and a dense layer without bias. `standardise` gives each image mean 0 and variance 1 first.
    """
    import keras
    from keras import layers

    from models.layers import standardisation

    network = keras.Sequential([keras.Input(input_shape)], name="features")
    if standardise:
        network.add(standardisation())
    for filters in (32, 64):
        network.add(layers.Conv2D(filters, 5, padding="same", use_bias=False))
        network.add(layers.BatchNormalization(momentum=0.9, center=False, scale=False))
        network.add(layers.LeakyReLU(0.1))
        network.add(layers.MaxPooling2D())
    network.add(layers.Flatten())
    network.add(layers.Dense(feature_dim, use_bias=False))
    return network
