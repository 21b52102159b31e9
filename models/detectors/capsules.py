"""Base class of the detectors whose networks have a capsule for each class and see pixels."""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from models.detectors.backbone import LEAST_USUAL, rescaled
from models.detectors.base import image_shape
from models.detectors.network import NetworkDetector
from models.detectors.settings import score_setting, setting
from models.inference import in_batches, outputs_on
from models.sampling import stratified

if TYPE_CHECKING:
    import keras

    from models.capsnet import CapsuleNetwork
    from models.detectors.backbone import Tensors

LEAST_SPREAD = 0.01  # trained networks have far more; any less is rounding error
_KNOWN = 8000  # largest number of training images that can be neighbours
_NEIGHBOURS = 5
_ASIDE = 5  # With too few validation images, each fifth known image tells what is usual, too.
_SHARPNESS = 3.0  # of the smooth maximum
_CALMER = 4  # how many times smaller the learning rate is after a collapse


@dataclass(kw_only=True)
class CapsuleDetector(NetworkDetector):
    """Scores images by the longest capsule (`pp`), reconstruction error (`re`) and `conformity`.

    Conformity is `sigmoid(-asinh(u))`, in (0, 1), where u is a smooth maximum of three terms: minus
    the length of the longest class capsule, the distance of the poses of all class capsules to
    those of near training images, and their distance to the nearest class as a whole. Each term is
    first normalised by its median and spread among normal images. So an image is unusual if it is
    so in any way.

    With one normal class, the network learns to tell how an image was turned, and the capsule of
    images that were not turned is that of the class.

    Reference:
        "Exploring Deep Anomaly Detection Methods Based on Capsule Net", arXiv 1907.06312.
        Distances to nearest neighbours are from Sun et al. 2022, arXiv 2204.06507, and to classes
        from Ren et al. 2021, arXiv 2106.09022. Turned images are from Gidaris, Singh, Komodakis
        2018, arXiv 1803.07728. The combination is our own.
    """

    scores: ClassVar[tuple[str, ...]] = ("conformity", "pp", "re")
    least_classes: ClassVar[int] = 1

    calibrated_score: str = score_setting(scores)
    precision: str = setting(
        "float32",
        "Precision of the convolutions in training: float32, or bfloat16, which is faster on "
        "processors with instructions for it and on accelerators. Weights, routing, losses and "
        "scores are always float32.",
        choices=("float32", "bfloat16"),
    )
    reconstruction_weight: float = setting(
        0.0005,
        "Weight of the sum of squared reconstruction errors. The margin loss has weight 1.",
        least=0,
    )
    class_dim: int = setting(16, "Dimension of the class capsules.")
    decoder_units: tuple[int, ...] = setting(
        (512, 1024), "Number of units in each hidden layer of the decoder."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.restarts = True

    @abc.abstractmethod
    def network(
        self, input_shape: tuple[int, int, int], num_classes: int, precision: str = "float32"
    ) -> CapsuleNetwork:
        """Creates an untrained network for images of `input_shape` (H, W, K).

        Args:
            input_shape: height, width and channels of what is seen of the images.
            num_classes: number of class capsules.
            precision: dtype policy of the convolutions: `float32` or `mixed_bfloat16`.
        """

    def copies(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Adds turned images, labelled by their turns, if there is only one class."""
        if len(self._classes) > 1:
            return images, labels
        height, width = image_shape(images)[:2]
        turns = (0, 1, 2, 3) if height == width else (0, 2)  # quarters
        turned = [np.rot90(images, turn, axes=(1, 2)) for turn in turns]
        return np.concatenate(turned), np.repeat(np.arange(len(turns)), len(images))

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Minimises the margin loss and the reconstruction error with Adam.

        If the network learns nothing, training starts once more: with a smaller learning rate, and
        with standardised images if the network sees pixels.
        """
        from models.training import Collapsed

        self._classes = np.unique(labels)
        try:
            return self.train_once(images, labels, validation, callbacks)
        except Collapsed:
            calmer = self._calmer()
        scorer = calmer.train_once(images, labels, validation, callbacks)
        self.history, self.seconds = calmer.history, calmer.seconds
        self.notes += calmer.notes
        return scorer

    @property
    def sees_pixels(self) -> bool:
        """Whether the network is trained on pixels, which can be standardised."""
        return True

    def _calmer(self) -> Self:
        """The detector with settings that are more likely to learn."""
        rate = self.rate() / _CALMER
        calmer = dataclasses.replace(
            self,
            learning_rate=rate,
            standardise=self.standardise or self.sees_pixels,
            backup_dir=self.backup_dir and f"{self.backup_dir}/restarted",
        )
        calmer.restarts = False
        calmer.places, calmer._classes = self.places, self._classes
        self.tell(
            f"Training was started once more, with learning rate {rate:.2g}"
            f"{' and standardised images' if self.sees_pixels else ''}."
        )
        return calmer

    def train_once(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Trains, and returns the scorer. Raises `Collapsed` if the network learns nothing."""
        image_size = image_shape(images)[:2]
        trained, turns = self.copies(images, labels)
        num_classes = int(turns.max()) + 1
        input_shape = self.seen_shape(images)
        policy = "mixed_bfloat16" if self.precision == "bfloat16" else "float32"
        network = self.network(input_shape, num_classes, policy)

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
            **self.losses(),
        )
        scoring = self.network(input_shape, num_classes)
        scoring.set_weights(network.get_weights())

        chosen = stratified(labels, _KNOWN, np.random.default_rng(self.seed))
        usual = images[:0] if validation is None else validation[0]
        if len(usual) < LEAST_USUAL:
            # What is usual must not be its own neighbour, but each class needs an image.
            aside = np.arange(len(chosen)) % _ASIDE == 0
            aside[np.unique(labels[chosen], return_index=True)[1]] = False
            usual = np.concatenate([usual, images[chosen[aside] if aside.any() else chosen]])
            chosen = chosen[~aside]
        known, kinds = self.copies(images[chosen], labels[chosen])
        return capsule_scorer(
            scoring, len(self._classes), image_size, self.seen(known), kinds, usual
        )

    def losses(self) -> dict[str, Any]:
        """Losses, their weights and metrics, for `compile`."""
        import keras

        from models.losses import MarginLoss, SumOfSquares

        return {
            "loss": {"lengths": MarginLoss(), "reconstruction": SumOfSquares()},
            "loss_weights": {"lengths": 1.0, "reconstruction": self.reconstruction_weight},
            "metrics": {"lengths": [keras.metrics.CategoricalAccuracy(name="accuracy")]},
        }


def capsule_scorer(
    network: CapsuleNetwork,
    classes: int,
    image_size: tuple[int, int],
    known: np.ndarray,
    kinds: np.ndarray,
    usual: np.ndarray,
) -> keras.Model:
    """Builds a model from uint8 images of any size, shape (B, H, W, K), to its scores.

    Args:
        network: trained network.
        classes: number of normal classes. Further class capsules tell turned images.
        image_size: height and width to which images are resized.
        known: training images to compare with, uint8 (N, *crop_size, K).
        kinds: their classes, int (N,). Those from `classes` on are turned images.
        usual: normal images, uint8 (n, H, W, K), for the median and spread of the terms. If
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
    lengths = outputs["lengths"][:, :classes]
    pp = scores.prediction_probability(lengths)
    poses = outputs_on(network.encoder, known)
    terms = [-pp, *_pose_distances(outputs["capsules"], poses, kinds, classes)]
    found = in_batches(keras.Model(images, terms), usual)
    unusual = smooth_maximum(
        [rescaled(term, values, LEAST_SPREAD) for term, values in zip(terms, found, strict=True)]
    )
    return keras.Model(
        images,
        {
            **normality(unusual, lengths, pp),
            "re": scores.reconstruction_error(inputs, outputs["reconstruction"]),
            "reconstruction": outputs["reconstruction"],
        },
        name=network.name,
    )


def smooth_maximum(terms: list[keras.KerasTensor]) -> keras.KerasTensor:
    """About the largest of standardised terms, (B,) each, by the log of a sum of exponentials.

    If the largest were taken alone, rounding would put images in order where one term is the same
    for all normal images.
    """
    from keras import ops

    return ops.logsumexp(_SHARPNESS * ops.stack(terms, axis=-1), axis=-1) / _SHARPNESS


def normality(
    unusual: keras.KerasTensor, lengths: keras.KerasTensor, pp: keras.KerasTensor
) -> Tensors:
    """The outputs that follow from `unusual` (B,), lengths (B, C) and the longest one (B,)."""
    from keras import ops

    probable = lengths + 1e-12  # because all lengths may be 0
    return {
        # This keeps the order, and float32 can still tell extreme values apart.
        "conformity": ops.sigmoid(-ops.arcsinh(unusual)),
        "pp": pp,
        "class_probabilities": probable / ops.sum(probable, axis=-1, keepdims=True),
    }


def _pose_distances(
    capsules: keras.KerasTensor, known: np.ndarray, kinds: np.ndarray, classes: int
) -> list[keras.KerasTensor]:
    """Distances (B,) of class capsules (B, C, E) to those of training images (N, C, E).

    The first is to near images of the `classes`, the second to the classes as a whole.
    """
    import keras

    from models.layers import NearestNeighbours, RelativeMahalanobis

    known = known.reshape(len(known), -1)
    normal = known[kinds < classes]
    poses = keras.layers.Flatten(dtype="float32")(capsules)
    nearest = NearestNeighbours(len(normal), min(_NEIGHBOURS, len(normal)), name="nearest_poses")
    normality, _ = nearest(poses)
    nearest.remember(normal, np.arange(len(normal)))
    relative = RelativeMahalanobis(classes, name="nearest_class")
    distance = relative(poses)
    relative.fit(known, kinds)
    return [-normality, distance]
