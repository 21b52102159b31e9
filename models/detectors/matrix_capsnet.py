"""Matrix capsules with EM routing as an anomaly detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models.detectors.network import NetworkDetector
from models.detectors.settings import score_setting, setting

if TYPE_CHECKING:
    import keras


@dataclass(kw_only=True)
class MatrixCapsNetDetector(NetworkDetector):
    """Scores images by the largest class activation (`pp`) and the reconstruction error (`re`).

    Reference:
        Hinton, Sabour, Frosst 2018, Matrix capsules with EM routing, ICLR. The scores are from
        arXiv 1907.06312.
    """

    name: ClassVar[str] = "matrix_capsnet"
    title: ClassVar[str] = "Matrix capsules with EM routing"
    reference: ClassVar[str] = "Hinton et al. 2018, ICLR"
    scores: ClassVar[tuple[str, ...]] = ("pp", "re")
    default_rates: ClassVar[dict[str, float]] = {"linear": 0.003, "one_cycle": 0.05}

    calibrated_score: str = score_setting(scores)
    batch_size: int = setting(25, "Number of images in each training step.")
    reconstruction_weight: float = setting(
        0.0005,
        "Weight of the sum of squared reconstruction errors. The spread loss has weight 1.",
        least=0,
    )
    filters: int = setting(32, "Number of channels of the first convolution.")
    primary_types: int = setting(8, "Number of types of primary capsules.")
    capsule_types: tuple[int, int] = setting(
        (16, 16), "Number of types in each of the two layers of convolutional capsules."
    )
    routing_iterations: int = setting(2, "Number of iterations of EM routing.")
    decoder_units: tuple[int, ...] = setting(
        (512, 1024), "Number of units in each hidden layer of the decoder."
    )

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Raises a UserError if images of (height, width) are too small."""
        from models.matrix_capsnet import check_image_size

        check_image_size(self.seen_size(image_size))

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Minimises the spread loss and the reconstruction error."""
        import keras

        from models import scores
        from models.losses import SpreadLoss, SumOfSquares
        from models.matrix_capsnet import matrix_capsnet

        num_classes = int(labels.max()) + 1
        training, scoring = matrix_capsnet(
            self.seen_shape(images),
            num_classes,
            self.filters,
            self.primary_types,
            self.capsule_types,
            self.routing_iterations,
            tuple(self.decoder_units),
            self.standardise,
        )

        def to_batch(images, labels):
            target = np.eye(num_classes, dtype="float32")[labels]
            return (
                {"images": images, "target": target},
                {"activations": target, "reconstruction": images},
            )

        self.fit_network(
            training,
            to_batch,
            images,
            labels,
            validation,
            callbacks,
            loss={"activations": SpreadLoss(), "reconstruction": SumOfSquares()},
            loss_weights={"activations": 1.0, "reconstruction": self.reconstruction_weight},
            metrics={"activations": [keras.metrics.CategoricalAccuracy(name="accuracy")]},
        )
        inputs, scaled = self.scorer_input(images)
        outputs = scoring(scaled)
        activations = outputs["activations"] + 1e-12  # because all activations may be 0
        return keras.Model(
            inputs,
            {
                "pp": keras.ops.max(outputs["activations"], axis=-1),
                "re": scores.reconstruction_error(scaled, outputs["reconstruction"]),
                "class_probabilities": activations
                / keras.ops.sum(activations, axis=-1, keepdims=True),
                "reconstruction": outputs["reconstruction"],
            },
            name=self.name,
        )
