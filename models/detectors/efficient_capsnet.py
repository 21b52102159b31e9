"""Efficient-CapsNet as an anomaly detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from models.detectors.capsules import CapsuleDetector

if TYPE_CHECKING:
    from models.efficient_capsnet import EfficientCapsNet


@dataclass(kw_only=True)
class EfficientCapsNetDetector(CapsuleDetector):
    """A network of capsules with a fortieth of CapsNet's weights, and no iterations of routing.

    Reference:
        Mazzia, Salvetti, Chiaberge 2021, arXiv 2101.12491.
    """

    name: ClassVar[str] = "efficient_capsnet"
    title: ClassVar[str] = "Efficient-CapsNet with self-attention routing"
    reference: ClassVar[str] = "arXiv 2101.12491"
    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.01}

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Raises a UserError if images of (height, width) are too small."""
        from models.efficient_capsnet import check_image_size

        check_image_size(self.seen_size(image_size))

    def network(
        self, input_shape: tuple[int, int, int], num_classes: int, precision: str = "float32"
    ) -> EfficientCapsNet:
        """Creates an untrained Efficient-CapsNet."""
        from models.efficient_capsnet import EfficientCapsNet

        return EfficientCapsNet(
            input_shape,
            num_classes,
            self.class_dim,
            self.decoder_units,
            self.standardise,
            precision,
        )
