"""CapsNet as an anomaly detector: the paper's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models.detectors.base import setting
from models.detectors.network import NetworkDetector
from models.errors import UserError

if TYPE_CHECKING:
    import keras

    from models.capsnet import CapsNet


@dataclass(kw_only=True)
class CapsNetDetector(NetworkDetector):
    """Scores by the longest class capsule (`pp`) and by the reconstruction error (`re`).

    Reference:
        "Exploring Deep Anomaly Detection Methods Based on Capsule Net", arXiv 1907.06312.
    """

    name: ClassVar[str] = "capsnet"
    title: ClassVar[str] = "CapsNet with dynamic routing"
    reference: ClassVar[str] = "arXiv 1907.06312, arXiv 1710.09829"
    scores: ClassVar[tuple[str, ...]] = ("pp", "re")
    calibrated_score: ClassVar[str] = "pp"
    # See benchmarks/results/schedules.md.
    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.005}

    precision: str = setting(
        "float32",
        "Of the convolutions in training: float32, or mixed_bfloat16 for GPUs and TPUs; routing "
        "and losses are float32.",
    )
    reconstruction_weight: float = setting(
        0.0005, "Weight of the sum of squared reconstruction errors beside the margin loss."
    )
    shift: int = setting(
        0, "Pixels by which training images are shifted at random (Sabour: 2 for MNIST)."
    )
    crop_size: tuple[int, int] | None = setting(
        None,
        "Part that the network sees: at random in training, the centre in scoring; `None`: all.",
    )
    filters: int = setting(256, "Channels of the first convolution.")
    kernel_size: int = setting(9, "Kernel of the first convolution.")
    primary_types: int = setting(32, "Types of primary capsules.")
    primary_dim: int = setting(8, "Dimension of the primary capsules.")
    primary_kernel_size: int = setting(9, "Kernel of the primary capsules.")
    primary_strides: int = setting(2, "Stride of the primary capsules.")
    class_dim: int = setting(16, "Dimension of the class capsules.")
    routing_iterations: int = setting(3, "Iterations of routing by agreement.")
    decoder_units: tuple[int, ...] = setting((512, 1024), "Widths of the decoder's hidden layers.")

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Raises a UserError if images of (height, width) are too small or too large."""
        from models.capsnet import check_image_size

        check_image_size(
            self.crop_size or image_size,
            self.kernel_size,
            self.primary_kernel_size,
            self.primary_strides,
            self.primary_types,
        )

    def train(self, images, labels, validation, callbacks) -> keras.Model:
        """Minimises margin loss and reconstruction error by Adam."""
        import keras

        from models.losses import MarginLoss, SumOfSquares

        image_size = images.shape[1:3]
        crop_size = tuple(self.crop_size or image_size)
        num_classes = int(labels.max()) + 1
        if self.precision not in ("float32", "mixed_bfloat16"):
            raise UserError(f"precision must be float32 or mixed_bfloat16, not '{self.precision}'.")
        input_shape = (*crop_size, images.shape[-1])
        network = self.network(input_shape, num_classes, self.precision)

        def to_batch(images, labels):
            target = np.eye(num_classes, dtype="float32")[labels]
            return (
                {"images": images, "target": target},
                {"lengths": target, "reconstruction": images},
            )

        self.fit_network(
            network.training_model(),
            to_batch,
            images,
            labels,
            validation,
            callbacks,
            crop_size=crop_size,
            shift=self.shift,
            loss={"lengths": MarginLoss(), "reconstruction": SumOfSquares()},
            loss_weights={"lengths": 1.0, "reconstruction": self.reconstruction_weight},
            metrics={"lengths": [keras.metrics.CategoricalAccuracy(name="accuracy")]},
        )
        scoring = self.network(input_shape, num_classes)
        scoring.set_weights(network.get_weights())
        return capsnet_scorer(scoring, image_size)

    def network(
        self, input_shape: tuple[int, int, int], num_classes: int, precision: str = "float32"
    ) -> CapsNet:
        """The untrained network for images of `input_shape` (H, W, K)."""
        from models.capsnet import CapsNet

        return CapsNet(
            input_shape,
            num_classes,
            filters=self.filters,
            kernel_size=self.kernel_size,
            primary_types=self.primary_types,
            primary_dim=self.primary_dim,
            primary_kernel_size=self.primary_kernel_size,
            primary_strides=self.primary_strides,
            class_dim=self.class_dim,
            routing_iterations=self.routing_iterations,
            decoder_units=self.decoder_units,
            precision=precision,
        )


def capsnet_scorer(network: CapsNet, image_size: tuple[int, int]) -> keras.Model:
    """From uint8 images of any size, shape (B, H, W, K), to the scores of a CapsNet."""
    import keras

    from models import scores
    from models.layers import ImagePreprocessing

    height, width, channels = network.settings["input_shape"]
    images = keras.Input((None, None, channels), dtype="uint8", name="images")
    # B, height, width, K
    inputs = ImagePreprocessing(image_size, (height, width), name="preprocessing")(images)
    outputs = network(inputs)
    lengths = outputs["lengths"]
    return keras.Model(
        images,
        {
            "pp": scores.prediction_probability(lengths),
            "re": scores.reconstruction_error(inputs, outputs["reconstruction"]),
            "class_probabilities": lengths / keras.ops.sum(lengths, axis=-1, keepdims=True),
            "reconstruction": outputs["reconstruction"],
        },
        name="capsnet",
    )
