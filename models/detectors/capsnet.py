"""CapsNet as an anomaly detector, which is the method of the paper (arXiv 1907.06312)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.detectors.backbone import (
    BackboneDetector,
    beyond,
    most_unusual,
    rescaled,
    standardised,
    standardised_map,
)
from models.detectors.base import image_shape
from models.detectors.network import NetworkDetector
from models.detectors.settings import setting
from models.errors import UserError
from models.inference import in_batches, outputs_on
from models.sampling import stratified

if TYPE_CHECKING:
    import keras

    from models.capsnet import CapsNet
    from models.detectors.backbone import FeatureData, Tensors

# Settings of the network that sees pixels.
_ON_PIXELS = (
    *("precision", "crop_size", "standardise", "filters", "kernel_size"),
    *("primary_kernel_size", "primary_strides"),
)
_ON_FEATURES = ("weights", "bank_size")
_POSES = 8000  # largest number of training images for the means and covariance of poses
_RIDGE = 1e-4  # added to the variances of the capsules
_CALMER = 4  # how many times smaller the learning rate is after a collapse
_LEAST_SPREAD = 0.01  # trained networks have far more; any less is rounding error


@dataclass(kw_only=True)
class CapsNetDetector(NetworkDetector, BackboneDetector):
    """Scores images by the longest capsule (`pp`), reconstruction error (`re`) and `conformity`.

    Conformity is `sigmoid(-asinh(sum))`, in (0, 1). The sum has minus the length of the longest
    capsule, and the Mahalanobis distance of all class capsules to the nearest class mean. On a
    backbone, it has instead of the latter the distance of the whole image to the nearest training
    image, and that of its most unusual patches as far as it is beyond that of normal images, see
    `patch_knn`. Each term is first normalised by its median and spread among normal images.

    With one normal class, the network learns to tell how an image was turned, and the capsule of
    images that were not turned is that of the class.

    Reference:
        "Exploring Deep Anomaly Detection Methods Based on Capsule Net", arXiv 1907.06312. The
        distance of class capsules is from Lee et al. 2018, arXiv 1807.03888, and that of patches
        from Roth et al. 2022, arXiv 2106.08265. Turned images are from Gidaris, Singh, Komodakis
        2018, arXiv 1803.07728. The sum is our own.
    """

    name: ClassVar[str] = "capsnet"
    title: ClassVar[str] = "CapsNet with dynamic routing"
    reference: ClassVar[str] = "arXiv 1907.06312, arXiv 1710.09829"
    scores: ClassVar[tuple[str, ...]] = ("conformity", "pp", "re")
    calibrated_score: ClassVar[str] = "conformity"
    # benchmarks/results/schedules.md shows how these rates were chosen.
    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.005}
    least_classes: ClassVar[int] = 1

    backbone: str | None = setting(
        None,
        "Frozen network under the capsules: mobilenet, efficientnetv2b0, resnet50 or convnexttiny. "
        "`None` means two convolutions that are trained.",
    )
    precision: str = setting(
        "float32",
        "Precision of the convolutions in training: float32, or mixed_bfloat16 for GPUs and TPUs. "
        "Routing and losses are always float32.",
        choices=("float32", "mixed_bfloat16"),
    )
    reconstruction_weight: float = setting(
        0.0005,
        "Weight of the sum of squared reconstruction errors. The margin loss has weight 1.",
        least=0,
    )
    augmented_copies: int = setting(
        2,
        "On a backbone, number of copies of each training image with a random shift, flip and "
        "brightness, if these are set.",
        least=0,
    )
    filters: int = setting(256, "Number of channels of the first convolution.")
    kernel_size: int = setting(9, "Kernel size of the first convolution.")
    primary_types: int = setting(32, "Number of types of primary capsules.")
    primary_dim: int = setting(8, "Dimension of the primary capsules.")
    primary_kernel_size: int = setting(
        9, "Kernel size of the convolution that makes the primary capsules."
    )
    primary_strides: int = setting(2, "Stride of the convolution that makes the primary capsules.")
    class_dim: int = setting(16, "Dimension of the class capsules.")
    routing_iterations: int = setting(3, "Number of iterations of routing by agreement.")
    decoder_units: tuple[int, ...] = setting(
        (512, 1024), "Number of units in each hidden layer of the decoder."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.restarts = True
        idle = _ON_PIXELS if self.backbone else _ON_FEATURES
        for field in dataclasses.fields(self):
            if field.name in idle and getattr(self, field.name) != field.default:
                where = "on a backbone" if self.backbone else "without a backbone"
                raise UserError(
                    f"{field.name} has no effect {where}: leave out {field.name}, or "
                    f"{'leave out' if self.backbone else 'name'} a backbone.",
                    field.name,
                    "backbone",
                )

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Raises a UserError if images of (height, width) are too small or too large."""
        from models.capsnet import check_image_size

        if self.backbone:
            BackboneDetector.check_image_size(self, image_size)
            return

        check_image_size(
            self.seen_size(image_size),
            self.kernel_size,
            self.primary_kernel_size,
            self.primary_strides,
            self.primary_types,
        )

    def check_weights(self, input_shape: tuple[int, int, int]) -> None:
        """Raises a UserError if a backbone's weights cannot be had, or are another network's."""
        if self.backbone:
            BackboneDetector.check_weights(self, input_shape)

    def copies(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Adds turned images, labelled by their turns, if there is only one class."""
        if len(self._classes) > 1:
            return images, labels
        height, width = image_shape(images)[:2]
        turns = (0, 1, 2, 3) if height == width else (0, 2)  # quarters
        turned = [np.rot90(images, turn, axes=(1, 2)) for turn in turns]
        return np.concatenate(turned), np.repeat(np.arange(len(turns)), len(images))

    def augmented(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Adds shifted, mirrored and brightened copies, because features are computed only once."""
        from models.augmentation import Augmentation

        if self.augmentation == Augmentation():
            return images, labels
        generator, size = np.random.default_rng(self.seed), image_shape(images)[:2]
        changed = [self.augmentation(images, size, generator) for _ in range(self.augmented_copies)]
        return np.concatenate([images, *changed]), np.tile(labels, 1 + len(changed))

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Minimises the margin loss and the reconstruction error with Adam.

        If the network learns nothing, training starts once more: with a smaller learning rate, and
        with standardised images if there is no backbone.
        """
        from models.training import Collapsed

        self._classes = np.unique(labels)
        try:
            return self._train(images, labels, validation, callbacks)
        except Collapsed:
            calmer = self._calmer()
        scorer = calmer._train(images, labels, validation, callbacks)
        self.history, self.seconds = calmer.history, calmer.seconds
        self.notes += calmer.notes
        return scorer

    def _calmer(self) -> CapsNetDetector:
        """The detector with settings that are more likely to learn."""
        rate = self.rate() / _CALMER
        calmer = dataclasses.replace(
            self,
            learning_rate=rate,
            standardise=self.standardise or not self.backbone,
            backup_dir=self.backup_dir and f"{self.backup_dir}/restarted",
        )
        calmer.restarts = False
        calmer.places, calmer._classes = self.places, self._classes
        self.tell(
            f"Training was started once more, with learning rate {rate:.2g}"
            f"{'' if self.backbone else ' and standardised images'}."
        )
        return calmer

    def _train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        if self.backbone:
            return super().train(images, labels, validation, callbacks)
        image_size = image_shape(images)[:2]
        trained, turns = self.copies(images, labels)
        num_classes = int(turns.max()) + 1
        input_shape = self.seen_shape(images)
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
            trained,
            turns,
            validation and self.copies(*validation),
            callbacks,
            **self._losses(),
        )
        scoring = self.network(input_shape, num_classes)
        scoring.set_weights(network.get_weights())

        chosen = stratified(labels, _POSES, np.random.default_rng(self.seed))
        known = self.seen(images[chosen]), labels[chosen]
        usual = images[chosen] if validation is None else validation[0]
        return capsnet_scorer(scoring, image_size, known, usual)

    def head(self, features: Tensors, data: FeatureData) -> Tensors:
        """Trains capsules on the last feature map."""
        from keras import ops

        from models import scores
        from models.feature_capsnet import feature_capsnet
        from models.features import DESCRIPTOR, LAST

        num_classes = int(data.trained[1].max()) + 1
        dim = features[DESCRIPTOR].shape[-1]
        training, scoring = feature_capsnet(
            features[LAST].shape[1:],
            dim,
            num_classes,
            self.primary_types,
            self.primary_dim,
            self.class_dim,
            self.routing_iterations,
            self.decoder_units,
        )
        scale = float(np.sqrt(dim))

        def to_batch(features, labels):
            target = np.eye(num_classes, dtype="float32")[labels]
            return (
                {LAST: features[LAST], "target": target},
                {"lengths": target, "reconstruction": features[DESCRIPTOR] * scale},
            )

        self.fit_network(
            training,
            to_batch,
            *data.trained,
            data.watched,
            data.callbacks,
            kinds=(LAST, DESCRIPTOR),
            **self._losses(),
        )
        outputs = scoring(features[LAST])
        lengths = outputs["lengths"][:, : len(self._classes)]
        pp = scores.prediction_probability(lengths)
        image, nearest_image = self.nearest_image(features, data)
        nearest = ops.min(self.nearest_patches(features, data), axis=-1)
        terms = standardised(features, {"length": -pp}, data.usual, _LEAST_SPREAD)
        terms |= standardised(features, {"image": image, "top": most_unusual(nearest)}, data.usual)
        unusual = terms["length"] + terms["image"] + beyond(terms["top"])
        described = features[DESCRIPTOR][:, None, None] * scale
        return {
            **_normality(unusual, lengths, pp),
            "re": scores.reconstruction_error(described, outputs["reconstruction"]),
            "anomaly_map": standardised_map(features, nearest, data.usual),
            "nearest_image": nearest_image,
        }

    def _losses(self) -> dict[str, Any]:
        """Losses, their weights and metrics, for `compile`."""
        import keras

        from models.losses import MarginLoss, SumOfSquares

        return {
            "loss": {"lengths": MarginLoss(), "reconstruction": SumOfSquares()},
            "loss_weights": {"lengths": 1.0, "reconstruction": self.reconstruction_weight},
            "metrics": {"lengths": [keras.metrics.CategoricalAccuracy(name="accuracy")]},
        }

    def network(
        self, input_shape: tuple[int, int, int], num_classes: int, precision: str = "float32"
    ) -> CapsNet:
        """Creates an untrained network for images of `input_shape` (H, W, K)."""
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
            standardise=self.standardise,
            precision=precision,
        )


def capsnet_scorer(
    network: CapsNet,
    image_size: tuple[int, int],
    known: tuple[np.ndarray, np.ndarray],
    usual: np.ndarray,
) -> keras.Model:
    """Builds a model from uint8 images of any size, shape (B, H, W, K), to CapsNet's scores.

    Args:
        network: trained network.
        image_size: height and width to which images are resized.
        known: training images, uint8 (N, *crop_size, K), and labels (N,), for the means and
            covariance of poses.
        usual: normal images, uint8 (n, H, W, K), for the median and spread of both terms. If
            possible, they were not used in training.
    """
    import keras

    from models import scores
    from models.layers import ImagePreprocessing

    height, width, channels = network.settings["input_shape"]
    images = keras.Input((None, None, channels), dtype="uint8", name="images")
    # B, height, width, K
    inputs = ImagePreprocessing(image_size, (height, width), name="preprocessing")(images)
    outputs = network(inputs)
    lengths = outputs["lengths"][:, : known[1].max() + 1]
    pp = scores.prediction_probability(lengths)
    pose = _pose_distance(network, *known)(outputs["capsules"])
    unusual = 0.0
    for part, values in zip(
        (-pp, pose), in_batches(keras.Model(images, [-pp, pose]), usual), strict=True
    ):
        unusual += rescaled(part, values, _LEAST_SPREAD)
    return keras.Model(
        images,
        {
            **_normality(unusual, lengths, pp),
            "re": scores.reconstruction_error(inputs, outputs["reconstruction"]),
            "reconstruction": outputs["reconstruction"],
        },
        name="capsnet",
    )


def _normality(
    unusual: keras.KerasTensor, lengths: keras.KerasTensor, pp: keras.KerasTensor
) -> Tensors:
    """The outputs that follow from the sum (B,), the lengths (B, C) and the longest one (B,)."""
    from keras import ops

    probable = lengths + 1e-12  # because all lengths may be 0
    return {
        # This keeps the order, and float32 can still tell extreme values apart.
        "conformity": ops.sigmoid(-ops.arcsinh(unusual)),
        "pp": pp,
        "class_probabilities": probable / ops.sum(probable, axis=-1, keepdims=True),
    }


def _pose_distance(network: CapsNet, images: np.ndarray, labels: np.ndarray) -> keras.Model:
    """Model from capsules (B, C, E) to the Mahalanobis distance (B,) to the nearest class mean."""
    import keras
    from keras import ops

    from models.layers import ClassCentres

    capsules = outputs_on(network.encoder, images)
    features = capsules.reshape(len(capsules), -1)
    means = np.stack([features[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    covariance = np.cov((features - means[labels]).T) + _RIDGE * np.eye(features.shape[1])
    whitening = np.linalg.cholesky(np.linalg.inv(covariance)).astype("float32")

    inputs = keras.Input(capsules.shape[1:])
    whiten = keras.layers.Dense(len(whitening), use_bias=False, dtype="float32", name="whiten")
    centres = ClassCentres(len(means), name="centres")
    distances = centres(whiten(keras.layers.Flatten(dtype="float32")(inputs)))
    whiten.set_weights([whitening])
    centres.place(features @ whitening, labels)
    return keras.Model(inputs, ops.min(distances, axis=-1), name="pose_distance")
