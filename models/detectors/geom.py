"""Detector that recognises which geometric transformation was applied to an image."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models.detectors.base import class_probabilities, image_shape
from models.detectors.network import NetworkDetector
from models.detectors.settings import setting
from models.errors import UserError

if TYPE_CHECKING:
    import keras


@dataclass(kw_only=True)
class GeomDetector(NetworkDetector):
    """Scores images by how surely class and transformation are recognised together (`geom`).

    The network classifies pairs of normal class and transformation. The transformations are flips,
    rotations by quarter turns and, with `shifts`, translations by a quarter of the image. In each
    epoch of training, the network sees each image after one random transformation, while Golan and
    El-Yaniv use all transformations. The score is `max_c mean_t log p(c, t | t(x))`, which is their
    simplified score in logarithms.

    Reference:
        Golan, El-Yaniv 2018, Deep anomaly detection using geometric transformations,
        arXiv 1805.10917. The pairs with classes are our own addition.
    """

    name: ClassVar[str] = "geom"
    title: ClassVar[str] = "Geometric transformations"
    reference: ClassVar[str] = "arXiv 1805.10917"
    scores: ClassVar[tuple[str, ...]] = ("geom",)
    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.05}
    least_classes: ClassVar[int] = 1

    shifts: bool = setting(
        False, "Whether to use translations, too: 72 transformations instead of 8."
    )
    architecture: str = setting(
        "modern",
        "Either paper (the network of arXiv 1907.06312) or modern (with batch normalisation and a "
        "global average).",
        choices=("paper", "modern"),
    )

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Raises a UserError if images of (height, width) are too small or not square."""
        from models.cnn import check_image_size

        size = self.seen_size(image_size)
        check_image_size(size)
        if size[0] != size[1]:
            raise UserError(
                f"Images of {size[0]}x{size[1]} pixels are not square, which rotations "
                "need: take square images.",
                "image_size",
            )

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Trains the classifier of pairs of class and transformation."""
        import keras
        from keras import ops

        from models.cnn import cnn
        from models.layers import GeometricTransformations

        self.check_image_size(image_shape(images)[:2])
        num_classes = int(labels.max()) + 1
        transformations = GeometricTransformations(self.shifts, name="transformations")
        network = cnn(
            self.seen_shape(images),
            num_classes * transformations.count,
            self.architecture,
            self.standardise,
        )

        def to_batch(images, labels):
            # The seed depends only on the batch, so each run draws the same transformations for it.
            # Its images tell it from other batches; its labels would not if there is one class.
            generator = np.random.default_rng([self.seed, zlib.crc32(images.tobytes())])
            chosen = generator.integers(transformations.count, size=len(images))
            images = np.stack(
                [
                    transformations.transform(image[None], index)[0]
                    for image, index in zip(images, chosen, strict=True)
                ]
            )
            return images, labels * transformations.count + chosen

        self.fit_network(
            keras.Model(network.input, network.output["logits"]),
            to_batch,
            images,
            labels,
            validation,
            callbacks,
            answers_per_class=transformations.count,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        inputs, scaled = self.scorer_input(images)
        # T * B, C * T
        logits = network(transformations(scaled))["logits"]
        mean = transformations.mean_log_probability(logits, num_classes)
        return keras.Model(
            inputs,
            {
                "geom": ops.max(mean, axis=-1),
                "class_probabilities": class_probabilities(mean),
            },
            name=self.name,
        )
