"""Nearest normal images and patches in the features of a frozen network, as in PatchCore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from models.detectors.backbone import (
    BackboneDetector,
    beyond,
    most_unusual,
    standardised,
    standardised_map,
)
from models.detectors.base import class_probabilities
from models.detectors.settings import score_setting

if TYPE_CHECKING:
    from models.detectors.backbone import FeatureData, Tensors


@dataclass(kw_only=True)
class PatchKnnDetector(BackboneDetector):
    """Scores images by their distances to normal images, as a whole and patch by patch.

    `whole_image` is the distance of the whole image to the nearest normal one. `patch_mean` is the
    mean distance of all patches to the nearest stored patch, and `patch_top` that of the most
    unusual 5 %. `patches`, the default, takes `whole_image` and `patch_top` after each is brought
    to the scale of normal images that were not stored: the first sees another surface, and the
    second, which counts only where it is beyond them, a small defect.

    Reference:
        Roth et al. 2022, Towards total recall in industrial anomaly detection (PatchCore),
        arXiv 2106.08265, for the patches. The distance of whole images is our own addition.
    """

    name: ClassVar[str] = "patch_knn"
    title: ClassVar[str] = "Nearest normal images and patches of a frozen ImageNet network"
    reference: ClassVar[str] = "arXiv 2106.08265"
    scores: ClassVar[tuple[str, ...]] = ("patches", "whole_image", "patch_mean", "patch_top")
    least_classes: ClassVar[int] = 1
    learns_classes: ClassVar[bool] = False
    epochs: ClassVar[int] = 1  # Images are seen once, and nothing is trained.

    calibrated_score: str = score_setting(scores)

    @property
    def finished_epochs(self) -> int:
        """One after `fit`, which stores the images."""
        return int(self.places.size > 0)

    def head(self, features: Tensors, data: FeatureData) -> Tensors:
        """Stores features; nothing is trained epoch by epoch."""
        from keras import ops

        image, nearest_image = self.nearest_image(features, data)
        # B, h, w, C
        distances = self.nearest_patches(features, data)
        nearest = ops.min(distances, axis=-1)
        top = most_unusual(nearest)
        terms = standardised(features, {"image": image, "top": top}, data.usual)
        by_class = -ops.mean(distances, axis=(1, 2))
        return {
            "patches": -terms["image"] - beyond(terms["top"]),
            "whole_image": -image,
            "patch_mean": -ops.mean(nearest, axis=(1, 2)),
            "patch_top": -top,
            "class_probabilities": class_probabilities(by_class),
            "anomaly_map": standardised_map(features, nearest, data.usual),
            "nearest_image": nearest_image,
        }
