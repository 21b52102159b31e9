"""CapsNet as an anomaly detector, which is the method of the paper (arXiv 1907.06312)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models.detectors.backbone import (
    BackboneDetector,
    beyond,
    most_unusual,
    standardised,
    standardised_map,
)
from models.detectors.base import image_shape
from models.detectors.capsules import LEAST_SPREAD, CapsuleDetector, normality
from models.detectors.settings import setting
from models.errors import UserError

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


@dataclass(kw_only=True)
class CapsNetDetector(CapsuleDetector, BackboneDetector):
    """CapsNet on pixels, or on the features of a backbone.

    On a backbone, `conformity` has, instead of the distance of class capsules, the distance of the
    whole image to the nearest training image, and that of its most unusual patches as far as it is
    beyond that of normal images, see `patch_knn`.

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829. The distance of patches is from Roth et al.
        2022, arXiv 2106.08265.
    """

    name: ClassVar[str] = "capsnet"
    title: ClassVar[str] = "CapsNet with dynamic routing"
    reference: ClassVar[str] = "arXiv 1907.06312, arXiv 1710.09829"
    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.005}

    backbone: str | None = setting(
        None,
        "Frozen network under the capsules: mobilenet, efficientnetv2b0, resnet50 or convnexttiny. "
        "`None` means two convolutions that are trained.",
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
    routing_iterations: int = setting(3, "Number of iterations of routing by agreement.")

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def augmented(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Adds shifted, mirrored and brightened copies, because features are computed only once."""
        from models.augmentation import Augmentation

        if self.augmentation == Augmentation():
            return images, labels
        generator, size = np.random.default_rng(self.seed), image_shape(images)[:2]
        changed = [self.augmentation(images, size, generator) for _ in range(self.augmented_copies)]
        return np.concatenate([images, *changed]), np.tile(labels, 1 + len(changed))

    @property
    def sees_pixels(self) -> bool:
        """Whether there is no backbone."""
        return not self.backbone

    def train_once(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Trains on pixels or on features, and returns the scorer."""
        if self.backbone:
            return BackboneDetector.train(self, images, labels, validation, callbacks)
        return super().train_once(images, labels, validation, callbacks)

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
            **self.losses(),
        )
        outputs = scoring(features[LAST])
        lengths = outputs["lengths"][:, : len(self._classes)]
        pp = scores.prediction_probability(lengths)
        image, nearest_image = self.nearest_image(features, data)
        nearest = ops.min(self.nearest_patches(features, data), axis=-1)
        terms = standardised(features, {"length": -pp}, data.usual, LEAST_SPREAD)
        terms |= standardised(features, {"image": image, "top": most_unusual(nearest)}, data.usual)
        unusual = terms["length"] + terms["image"] + beyond(terms["top"])
        described = features[DESCRIPTOR][:, None, None] * scale
        return {
            **normality(unusual, lengths, pp),
            "re": scores.reconstruction_error(described, outputs["reconstruction"]),
            "anomaly_map": standardised_map(features, nearest, data.usual),
            "nearest_image": nearest_image,
        }

    def network(
        self, input_shape: tuple[int, int, int], num_classes: int, precision: str = "float32"
    ) -> CapsNet:
        """Creates an untrained CapsNet."""
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
