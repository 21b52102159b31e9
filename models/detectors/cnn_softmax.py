"""Convolutional classifier with post-hoc scores, which need no change in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models.detectors.network import NetworkDetector
from models.detectors.settings import score_setting, setting
from models.inference import outputs_on
from models.sampling import stratified

if TYPE_CHECKING:
    import keras


@dataclass(kw_only=True)
class CnnDetector(NetworkDetector):
    """Base of `cnn_softmax` and `cnn_ocsvm`, which trains their classifier."""

    architecture: str = setting(
        "paper",
        "Either paper (the network of arXiv 1907.06312) or modern (with batch normalisation and a "
        "global average).",
        choices=("paper", "modern"),
    )

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Raises a UserError if images of (height, width) are too small."""
        from models.cnn import check_image_size

        check_image_size(self.seen_size(image_size))

    def train_cnn(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Minimises the cross-entropy of normal classes and returns the network of `models.cnn`."""
        import keras

        from models.cnn import cnn

        network = cnn(
            self.seen_shape(images), int(labels.max()) + 1, self.architecture, self.standardise
        )
        self.fit_network(
            keras.Model(network.input, network.output["logits"]),
            lambda images, labels: (images, labels),
            images,
            labels,
            validation,
            callbacks,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        return network


@dataclass(kw_only=True)
class CnnSoftmaxDetector(CnnDetector):
    """Scores images by softmax (`msp`), logits (`max_logit`, `energy`) and neighbours (`knn`).

    Reference:
        Hendrycks, Gimpel 2017, arXiv 1610.02136 (msp); Hendrycks et al. 2022, arXiv 1911.11132
        (max_logit); Liu et al. 2020, arXiv 2010.03759 (energy); Sun et al. 2022, arXiv 2204.06507
        (knn).
    """

    name: ClassVar[str] = "cnn_softmax"
    title: ClassVar[str] = "CNN with post-hoc scores"
    reference: ClassVar[str] = (
        "arXiv 1610.02136, arXiv 1911.11132, arXiv 2010.03759, arXiv 2204.06507"
    )
    scores: ClassVar[tuple[str, ...]] = ("knn", "msp", "max_logit", "energy")
    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.02}

    calibrated_score: str = score_setting(scores)
    neighbours: int = setting(
        10, "Number k. The score knn is minus the distance to the k-th nearest neighbour."
    )
    bank_size: int = setting(5000, "Largest number of training images that can be neighbours.")

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Trains the classifier and stores the features of training images."""
        import keras

        from models import scores
        from models.layers import NearestNeighbours

        network = self.train_cnn(images, labels, validation, callbacks)
        generator = np.random.default_rng(self.seed)
        chosen = stratified(labels, self.bank_size, generator)
        features = keras.Model(network.input, network.output["features"])
        bank = outputs_on(features, self.seen(images[chosen]))
        nearest = NearestNeighbours(len(bank), min(self.neighbours, len(bank)), name="neighbours")

        inputs, scaled = self.scorer_input(images)
        outputs = network(scaled)
        logits = outputs["logits"]
        knn, nearest_image = nearest(outputs["features"])
        nearest.remember(bank, self.places[chosen])
        return keras.Model(
            inputs,
            {
                "msp": scores.maximum_softmax_probability(logits),
                "max_logit": scores.max_logit(logits),
                "energy": scores.energy(logits),
                "knn": knn,
                "class_probabilities": keras.ops.softmax(logits, axis=-1),
                "nearest_image": nearest_image,
            },
            name=self.name,
        )
