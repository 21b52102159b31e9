"""Variational autoencoder as an anomaly detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models.detectors.base import class_probabilities
from models.detectors.network import NetworkDetector
from models.detectors.settings import score_setting, setting
from models.inference import outputs_on

if TYPE_CHECKING:
    import keras


@dataclass(kw_only=True)
class VaeDetector(NetworkDetector):
    """Scores images by the reconstruction error (`re`) and the evidence lower bound (`elbo`).

    The labels are used only for `class_probabilities`, which come from the distances of the latent
    mean to the class means. The bound is computed at the mean of the latent Gaussian, without
    noise, so that each image has exactly one score.

    Reference:
        arXiv 1907.06312, section 4; Kingma, Welling 2014, arXiv 1312.6114.
    """

    name: ClassVar[str] = "vae"
    title: ClassVar[str] = "Convolutional variational autoencoder"
    reference: ClassVar[str] = "arXiv 1907.06312, arXiv 1312.6114"
    scores: ClassVar[tuple[str, ...]] = ("re", "elbo")
    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.003}
    learns_classes: ClassVar[bool] = False
    least_classes: ClassVar[int] = 1

    calibrated_score: str = score_setting(scores)
    latent_dim: int = setting(64, "Dimension of the latent Gaussian.")

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
        """Maximises the evidence lower bound."""
        import keras

        from models import scores
        from models.layers import ClassCentres
        from models.losses import PixelCrossentropy, Value
        from models.vae import vae

        network = vae(self.seen_shape(images), self.latent_dim, self.seed, self.standardise)

        def to_batch(images, labels):
            nothing = np.zeros(len(images), "float32")  # because the divergence has no target
            return images, {"reconstruction": images, "divergence": nothing}

        outputs = network.output
        self.fit_network(
            keras.Model(
                network.input, {name: outputs[name] for name in ("reconstruction", "divergence")}
            ),
            to_batch,
            images,
            labels,
            validation,
            callbacks,
            loss={"reconstruction": PixelCrossentropy(), "divergence": Value()},
        )
        centres = ClassCentres(int(labels.max()) + 1, name="centres")
        centres.build((None, self.latent_dim))
        centres.place(
            outputs_on(keras.Model(network.input, outputs["mean"]), self.seen(images)), labels
        )

        inputs, scaled = self.scorer_input(images)
        outputs = network(scaled)
        reconstruction = outputs["reconstruction"]
        likelihood = PixelCrossentropy().call(scaled, reconstruction)
        return keras.Model(
            inputs,
            {
                "re": scores.reconstruction_error(scaled, reconstruction),
                "elbo": -likelihood - outputs["divergence"],
                "class_probabilities": class_probabilities(-centres(outputs["mean"])),
                "reconstruction": reconstruction,
            },
            name=self.name,
        )
