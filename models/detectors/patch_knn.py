"""Nearest normal patches in the feature maps of a frozen network, as in PatchCore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.coreset import coreset
from models.detectors.base import Detector, image_shape, setting
from models.detectors.network import in_batches

if TYPE_CHECKING:
    import keras

_CANDIDATES = 20_000  # patches of each class among which those that are stored are chosen
_USUAL = 200  # images for the scale of the scores, where there are no validation images
_LEAST_SPREAD = 1e-6
_BATCH_SIZE = 32  # Feature maps of photographs are large.


@dataclass(kw_only=True)
class PatchKnnDetector(Detector):
    """Scores by the distances of an image's patches to stored patches of normal images.

    `patch_mean` is the mean distance of all patches, and `patch_top` that of the most unusual 5 %.
    `patches`, the default, is the sum of both after each is brought to the scale of normal images
    that were not stored. The mean alone is better on surfaces with a fine texture, where single
    patches are unusual by chance; the most unusual patches are better for small defects.

    Reference:
        Roth et al. 2022, Towards total recall in industrial anomaly detection (PatchCore),
        arXiv 2106.08265.
    """

    name: ClassVar[str] = "patch_knn"
    title: ClassVar[str] = "Nearest normal patches of a frozen ImageNet network"
    reference: ClassVar[str] = "arXiv 2106.08265"
    scores: ClassVar[tuple[str, ...]] = ("patches", "patch_mean", "patch_top")
    calibrated_score: ClassVar[str] = "patches"
    least_classes: ClassVar[int] = 1
    epochs: ClassVar[int] = 1  # Images are seen once, and nothing is trained.

    backbone: str = setting(
        "mobilenet", "Frozen network: mobilenet, efficientnetv2b0, resnet50 or convnexttiny."
    )
    weights: str = setting(
        "imagenet", "Weights of the network: imagenet, which Keras fetches once, none, or a file."
    )
    bank_size: int = setting(4000, "Number of stored patches, of all classes together.")
    projection_dim: int = setting(128, "Number of values of a patch after a random projection.")

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Raises a UserError if images of (height, width) are too small."""
        from models.backbones import check_image_size

        check_image_size(image_size)

    def check_weights(self, input_shape: tuple[int, int, int]) -> None:
        """Raises a UserError if the backbone's weights cannot be had, or are another network's."""
        from models.backbones import backbone

        backbone(self.backbone, self.weights, input_shape)

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Chooses the patches that are stored."""
        import keras
        from keras import ops

        from models.layers import ImagePreprocessing, PatchDistance

        del callbacks  # Nothing is trained epoch by epoch.
        shape = image_shape(images)
        patches = self._patches(shape)
        features = _compiled(patches)
        generator = np.random.default_rng(self.seed)
        banks = [
            self._bank(features, images[labels == label], labels.max() + 1, generator)
            for label in range(labels.max() + 1)
        ]
        nearest = PatchDistance([len(bank) for bank in banks], name="nearest_patches")

        inputs = keras.Input((None, None, shape[-1]), dtype="uint8", name="images")
        scaled = ImagePreprocessing(shape[:2], name="preprocessing")(inputs)
        # B, h, w, C
        distances = nearest(patches(scaled))
        nearest.remember(banks)
        # B, h, w
        anomaly_map = ops.min(distances, axis=-1)
        height, width = anomaly_map.shape[1:]
        flat = ops.reshape(anomaly_map, (-1, height * width))
        mean = ops.mean(flat, axis=-1)
        most = max(1, round(0.05 * height * width))
        top = ops.mean(ops.top_k(flat, most)[0], axis=-1)
        usual = images[generator.permutation(len(images))[:_USUAL]]
        if validation is not None and len(validation[0]):
            usual = validation[0]
        measure = _compiled(keras.Model(inputs, {"mean": mean, "top": top, "map": flat}))
        found = in_batches(measure, usual, _BATCH_SIZE)
        unusual = 0.0
        for part, values in ((mean, found["mean"]), (top, found["top"])):
            unusual += _standardised(part, values, 0.9)
        return keras.Model(
            inputs,
            {
                "patches": -unusual,
                "patch_mean": -mean,
                "patch_top": -top,
                "class_probabilities": ops.softmax(-ops.mean(distances, axis=(1, 2)), axis=-1),
                "anomaly_map": _standardised_map(anomaly_map, found["map"]),
            },
            name=self.name,
        )

    def _patches(self, input_shape: tuple[int, int, int]) -> keras.Model:
        """Model from float images (B, H, W, K) to patches (B, H / 16, W / 16, projection_dim).

        Two feature maps, each averaged over 3x3 neighbours, are joined at the coarser one's size.
        """
        import keras

        from models.backbones import backbone

        network = backbone(self.backbone, self.weights, input_shape, ("stride8", "stride16"))
        fine, coarse = (
            keras.layers.AveragePooling2D(3, 1, "same")(network.output[name])
            for name in ("stride8", "stride16")
        )
        joined = keras.layers.Concatenate()(
            [keras.layers.AveragePooling2D(2, padding="same")(fine), coarse]
        )
        project = keras.layers.Dense(self.projection_dim, use_bias=False, name="projection")
        patches = keras.Model(network.input, project(joined), name="patches")
        generator = np.random.default_rng(self.seed)
        size = (joined.shape[-1], self.projection_dim)
        weights = generator.standard_normal(size) / np.sqrt(self.projection_dim)
        project.set_weights([weights.astype("float32")])
        return patches

    def _bank(
        self, features: Callable, images: np.ndarray, classes: int, generator: np.random.Generator
    ) -> np.ndarray:
        """The patches of one class that are stored, float32 (n, D)."""

        def some(batch: np.ndarray) -> np.ndarray:
            found = np.asarray(features(batch))
            found = found.reshape(len(batch), -1, found.shape[-1])
            count = min(found.shape[1], -(-_CANDIDATES // len(images)))
            return np.stack([of[generator.permutation(len(of))[:count]] for of in found])

        candidates = in_batches(some, images, _BATCH_SIZE)
        candidates = candidates.reshape(-1, candidates.shape[-1])
        return candidates[coreset(candidates, max(1, self.bank_size // classes), generator)]


def _compiled(model: keras.Model) -> Callable[[np.ndarray], Any]:
    """A function from uint8 images (B, H, W, K) to the model's output, compiled where it pays."""
    takes_floats = model.input.dtype != "uint8"

    def run(batch: np.ndarray) -> Any:
        given = batch.astype("float32") / 255 if takes_floats else batch
        return model.predict_on_batch(given)

    return run


def _standardised(tensor: Any, values: np.ndarray, upper: float) -> Any:
    """The tensor on a scale where the median of `values` is 0 and their `upper` quantile is 1."""
    import keras

    centre, most = np.quantile(values, [0.5, upper]).tolist()
    spread = max(most - centre, _LEAST_SPREAD)
    return keras.layers.Rescaling(1 / spread, -centre / spread)(tensor)


def _standardised_map(anomaly_map: Any, values: np.ndarray) -> Any:
    """The map on a scale where 0 is usual at each place, and 99 % of normal patches are below 1.

    At the borders, distances are larger by the padding of the network's convolutions.

    Args:
        anomaly_map: tensor, shape (B, h, w).
        values: distances of normal images, float array, shape (n, h * w).
    """
    import keras

    # h * w
    centres = np.median(values, axis=0)
    spread = max(float(np.quantile(values - centres, 0.99)), _LEAST_SPREAD)
    offsets = (-centres / spread).reshape(anomaly_map.shape[1:]).tolist()
    return keras.layers.Rescaling(1 / spread, offsets)(anomaly_map)
