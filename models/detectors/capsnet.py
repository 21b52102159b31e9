"""CapsNet as an anomaly detector: the paper's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models.detectors.base import Detector, setting

if TYPE_CHECKING:
    import keras

    from models.capsnet import CapsNet


@dataclass(kw_only=True)
class CapsNetDetector(Detector):
    """Scores by the longest class capsule (`pp`) and by the reconstruction error (`re`).

    Reference:
        "Exploring Deep Anomaly Detection Methods Based on Capsule Net", arXiv 1907.06312.
    """

    name: ClassVar[str] = "capsnet"
    title: ClassVar[str] = "CapsNet with dynamic routing"
    reference: ClassVar[str] = "arXiv 1907.06312, arXiv 1710.09829"
    scores: ClassVar[tuple[str, ...]] = ("pp", "re")
    calibrated_score: ClassVar[str] = "pp"

    epochs: int = setting(20, "Passes over the training images.")
    batch_size: int = setting(100, "Images a training step.")
    learning_rate: float = setting(0.001, "Adam's, falling linearly to zero.")
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
        """Raises a UserError if images of (height, width) are too small."""
        from models.capsnet import check_image_size

        check_image_size(self.crop_size or image_size, self.kernel_size, self.primary_kernel_size)

    def train(self, images, labels, validation, callbacks) -> keras.Model:
        """Minimises margin loss and reconstruction error by Adam."""
        import keras

        from models.losses import MarginLoss, SumOfSquares
        from models.training import Backup, Batches, use_xla

        image_size = images.shape[1:3]
        crop_size = tuple(self.crop_size or image_size)
        num_classes = int(labels.max()) + 1
        network = self.network((*crop_size, images.shape[-1]), num_classes)

        model = network.training_model()
        steps = -(-len(images) // self.batch_size) * self.epochs
        model.compile(
            keras.optimizers.Adam(
                keras.optimizers.schedules.PolynomialDecay(self.learning_rate, steps, 0.0)
            ),
            loss={"lengths": MarginLoss(), "reconstruction": SumOfSquares()},
            loss_weights={"lengths": 1.0, "reconstruction": self.reconstruction_weight},
            metrics={"lengths": [keras.metrics.CategoricalAccuracy(name="accuracy")]},
            jit_compile=use_xla(),
        )

        def to_batch(images, labels):
            target = np.eye(num_classes, dtype="float32")[labels]
            return (
                {"images": images, "target": target},
                {"lengths": target, "reconstruction": images},
            )

        backup = Backup(self.backup_dir)
        first_epoch = backup.restore(model)
        model.fit(
            Batches(
                images,
                labels,
                self.batch_size,
                crop_size,
                to_batch,
                seed=self.seed,
                shift=self.shift,
                first_epoch=first_epoch,
            ),
            validation_data=validation
            and Batches(*validation, self.batch_size, crop_size, to_batch),
            epochs=self.epochs,
            initial_epoch=first_epoch,
            callbacks=[*callbacks, backup],
            shuffle=False,
            verbose=self.verbose,
        )
        self.history = backup.history
        return capsnet_scorer(network, image_size)

    def network(self, input_shape: tuple[int, int, int], num_classes: int) -> CapsNet:
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
