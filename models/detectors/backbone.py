"""Base class of the detectors that look at images through a frozen network."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.coreset import coreset
from models.detectors.base import Detector, image_shape
from models.detectors.settings import setting
from models.inference import in_batches
from models.sampling import stratified

if TYPE_CHECKING:
    import keras

    from models.features import Features

    Tensors = dict[str, keras.KerasTensor]

_LEAST_SPREAD = 1e-6
LEAST_USUAL = 10  # images from which a median and a 0.9 quantile can be told
_USUAL = 500  # images for the scale of the scores, at most
_STORED = 4000  # images whose descriptors are stored, at most
_CANDIDATES = 20_000  # patches of all classes among which those that are stored are chosen
_CUT = 1000  # images of each class from which these patches are taken
_USUAL_TERM = 1.5  # where a standardised term begins to say something
_TOP = 0.05  # share of the patches of an image that are its most unusual ones


@dataclass(frozen=True)
class FeatureData:
    """The features that a head is trained on."""

    trained: tuple[Features, np.ndarray]
    """Training images with their changed copies, and labels (M,)."""
    watched: tuple[Features, np.ndarray] | None
    """The same of the validation images, if there are any."""
    known: Features
    """N training images without copies, with which others are compared."""
    labels: np.ndarray
    """Their normal classes, int (N,)."""
    numbers: np.ndarray
    """Their numbers in the images given to `fit`, int (N,)."""
    usual: Features
    """Normal images for the scale of scores, none of them in `known`."""
    callbacks: tuple[keras.callbacks.Callback, ...]
    """Keras callbacks for training."""


@dataclass(kw_only=True)
class BackboneDetector(Detector):
    """Computes features by a frozen network once, and trains on the features.

    A subclass implements `head`, from features to scores. It can use three distances to normal
    images, see `nearest_image` and `nearest_patches`.
    """

    backbone: str | None = setting(
        "mobilenet", "Frozen network: mobilenet, efficientnetv2b0, resnet50 or convnexttiny."
    )
    weights: str = setting(
        "imagenet", "Weights of the network: imagenet, which Keras fetches once, none, or a file."
    )
    bank_size: int = setting(4000, "Number of patches that are stored, of all classes together.")

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Raises a UserError if images of (height, width) are too small."""
        from models.backbones import check_image_size

        check_image_size(image_size)

    def check_weights(self, input_shape: tuple[int, int, int]) -> None:
        """Raises a UserError if the backbone's weights cannot be had, or are another network's."""
        self._network(input_shape)

    def copies(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Adds changed copies to images (N, H, W, K) and labels (N,); the originals come first."""
        return images, labels

    def augmented(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Adds copies with random changes to training images and labels, behind all others."""
        return images, labels

    @abc.abstractmethod
    def head(self, features: Tensors, data: FeatureData) -> Tensors:
        """Trains on features, and returns the raw scores and other outputs.

        Args:
            features: symbolic features of a batch of images, see `models.features`.
            data: the features to train on.
        """

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Trains the head, and returns the model from images to its outputs."""
        import keras

        from models.layers import ImagePreprocessing

        shape = image_shape(images)
        network = self._network(shape)
        trained, trained_labels = self.augmented(*self.copies(images, labels))
        found = self._features(network, trained)
        seen = images[:0] if validation is None else validation[0]
        watched = None
        if validation is not None and len(seen):
            copied, copied_labels = self.copies(*validation)
            watched = self._features(network, copied), copied_labels
        if watched and len(seen) >= LEAST_USUAL:
            known, usual = np.arange(len(labels)), watched[0][: len(seen)]
        else:
            known, aside = _put_aside(labels, np.random.default_rng(self.seed))
            usual = found[aside]
            if len(seen):
                usual = self._features(network, np.concatenate([seen, images[aside]]))
        data = FeatureData(
            trained=(found, trained_labels),
            watched=watched,
            known=found[known],
            labels=labels[known],
            numbers=self.places[known],
            usual=usual,
            callbacks=callbacks,
        )
        features = {
            key: keras.Input(tensor.shape[1:], name=key) for key, tensor in network.output.items()
        }
        head = keras.Model(features, self.head(features, data), name="head")
        inputs = keras.Input((None, None, shape[-1]), dtype="uint8", name="images")
        scaled = ImagePreprocessing(shape[:2], name="preprocessing")(inputs)
        return keras.Model(inputs, head(network(scaled)), name=self.name)

    def raw_scores(self, scorer: keras.Model, images: np.ndarray) -> np.ndarray:
        """Computes the score that is calibrated, float (N,), from features that are kept."""
        if not self.backbone:
            return super().raw_scores(scorer, images)
        network, head = scorer.get_layer("features"), scorer.get_layer("head")
        return values_of(head, self._features(network, images))[self.calibrated_score]

    def nearest_image(
        self, features: Tensors, data: FeatureData
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Distance (B,) of descriptors to those of the nearest training image, and its number."""
        from models.features import DESCRIPTOR
        from models.layers import NearestNeighbours

        chosen = stratified(data.labels, _STORED, np.random.default_rng(self.seed))
        nearest = NearestNeighbours(len(chosen), 1, name="nearest_image")
        normality, number = nearest(features[DESCRIPTOR])
        nearest.remember(data.known[chosen].read(DESCRIPTOR), data.numbers[chosen])
        return -normality, number

    def nearest_patches(self, features: Tensors, data: FeatureData) -> keras.KerasTensor:
        """Distances (B, h, w, C) of patches to the nearest stored patches of each class.

        The patches that are stored are chosen greedily, as in PatchCore.
        """
        from models.features import PATCHES
        from models.layers import PatchDistance

        generator = np.random.default_rng(self.seed)
        classes = data.labels.max() + 1
        banks = []
        for label in range(classes):
            (own,) = np.nonzero(data.labels == label)
            # n, h, w, D
            patches = data.known[own[generator.permutation(len(own))[:_CUT]]].read(PATCHES)
            candidates = _some_patches(patches, _CANDIDATES // classes, generator)
            size = max(1, self.bank_size // classes)
            banks.append(candidates[coreset(candidates, size, generator)])
        nearest = PatchDistance([len(bank) for bank in banks], name="nearest_patches")
        distances = nearest(features[PATCHES])
        nearest.remember(banks)
        return distances

    def _network(self, input_shape: tuple[int, int, int]) -> keras.Model:
        from models.features import feature_network

        return feature_network(str(self.backbone), self.weights, input_shape)

    def _features(self, network: keras.Model, images: np.ndarray) -> Features:
        from models.features import compute_features

        return compute_features(network, images, self.features_dir)


def values_of(head: keras.Model, features: Features) -> dict[str, np.ndarray]:
    """Outputs of a head, each float (N, ...), for features of N images."""

    def read(places: np.ndarray) -> dict[str, np.ndarray]:
        batch = features[places]
        return {key: batch.read(key) for key in head.input}

    return in_batches(head, np.arange(len(features)), 100, read)


def most_unusual(distances: keras.KerasTensor) -> keras.KerasTensor:
    """The mean (B,) of the largest 5 % of the distances (B, h, w) of an image's patches."""
    from keras import ops

    height, width = distances.shape[1:]
    most = max(1, round(_TOP * height * width))
    return ops.mean(ops.top_k(ops.reshape(distances, (-1, height * width)), most)[0], axis=-1)


def standardised(
    features: Tensors, terms: Tensors, usual: Features, least_spread: float = _LEAST_SPREAD
) -> Tensors:
    """Brings terms to a scale where normal images have the median 0 and the 0.9 quantile 1.

    Args:
        features: symbolic features from which the terms are computed.
        terms: name -> term (B,), higher = more anomalous.
        usual: features of normal images.
        least_spread: smallest difference of the 0.9 quantile and the median that counts; any less
            is rounding error.
    """
    import keras

    found = values_of(keras.Model(features, terms), usual)
    return {name: rescaled(terms[name], values, least_spread) for name, values in found.items()}


def rescaled(term: keras.KerasTensor, values: np.ndarray, least_spread: float) -> keras.KerasTensor:
    """Brings a term (B,) to the scale of `standardised`, by its values (n,) for normal images."""
    import keras

    centre, upper = np.quantile(values, [0.5, 0.9]).tolist()
    spread = max(upper - centre, least_spread)
    return keras.layers.Rescaling(1 / spread, -centre / spread, dtype="float32")(term)


def beyond(term: keras.KerasTensor) -> keras.KerasTensor:
    """What a standardised term has beyond all but few normal images, at least 0.

    Single patches of a fine texture are unusual by chance. Up to here, their distance says nothing
    and would only blur the other terms.
    """
    from keras import ops

    return ops.relu(term - _USUAL_TERM)


def standardised_map(
    features: Tensors, distances: keras.KerasTensor, usual: Features
) -> keras.KerasTensor:
    """The map on a scale where 0 is usual at each place, and 99 % of normal patches are below 1.

    At the borders, distances are larger by the padding of the network's convolutions.

    Args:
        features: symbolic features from which the map is computed.
        distances: distances of patches, shape (B, h, w).
        usual: features of normal images.
    """
    import keras

    # n, h, w
    values = values_of(keras.Model(features, {"map": distances}), usual)["map"]
    centres = np.median(values, axis=0)
    spread = max(float(np.quantile(values - centres, 0.99)), _LEAST_SPREAD)
    rescaling = keras.layers.Rescaling(1 / spread, (-centres / spread).tolist(), dtype="float32")
    return rescaling(distances)


def _put_aside(labels: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Divides places of images (N,) into nine tenths, and one tenth for the scale of scores.

    The first of each class always belongs to the nine tenths; so few images have to be both.
    """
    aside = np.zeros(len(labels), bool)
    aside[generator.permutation(len(labels))[: min(_USUAL, -(-len(labels) // 10))]] = True
    aside[np.unique(labels, return_index=True)[1]] = False
    places = np.arange(len(labels))
    return places[~aside], places[aside] if aside.any() else places


def _some_patches(patches: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draws `count` patches, equally many of each image: (n, h, w, D) -> (count, D)."""
    flat = patches.reshape(len(patches), -1, patches.shape[-1])
    of_each = min(flat.shape[1], -(-count // len(flat)))
    return np.concatenate([of[generator.permutation(len(of))[:of_each]] for of in flat])
