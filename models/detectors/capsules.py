"""Base class of the detectors whose networks have a capsule for each class and see pixels."""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from models.detectors.backbone import rescaled
from models.detectors.base import image_shape
from models.detectors.network import NetworkDetector
from models.detectors.settings import setting
from models.inference import in_batches, outputs_on
from models.sampling import stratified

if TYPE_CHECKING:
    import keras

    from models.capsnet import CapsuleNetwork
    from models.detectors.backbone import Tensors

LEAST_SPREAD = 0.01  # trained networks have far more; any less is rounding error
_POSES = 8000  # largest number of training images for the means and covariance of poses
_RIDGE = 1e-4  # added to the variances of the capsules
_CALMER = 4  # how many times smaller the learning rate is after a collapse


@dataclass(kw_only=True)
class CapsuleDetector(NetworkDetector):
    """Scores images by the longest capsule (`pp`), reconstruction error (`re`) and `conformity`.

    Conformity is `sigmoid(-asinh(sum))`, in (0, 1). The sum has minus the length of the longest
    capsule, and the Mahalanobis distance of all class capsules to the nearest class mean. Each
    term is first normalised by its median and spread among normal images.

    With one normal class, the network learns to tell how an image was turned, and the capsule of
    images that were not turned is that of the class.

    Reference:
        "Exploring Deep Anomaly Detection Methods Based on Capsule Net", arXiv 1907.06312. The
        distance of class capsules is from Lee et al. 2018, arXiv 1807.03888. Turned images are
        from Gidaris, Singh, Komodakis 2018, arXiv 1803.07728. The sum is our own.
    """

    scores: ClassVar[tuple[str, ...]] = ("conformity", "pp", "re")
    calibrated_score: ClassVar[str] = "conformity"
    least_classes: ClassVar[int] = 1

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

        chosen = stratified(labels, _POSES, np.random.default_rng(self.seed))
        known = self.seen(images[chosen]), labels[chosen]
        usual = images[chosen] if validation is None else validation[0]
        return capsule_scorer(scoring, image_size, known, usual)

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
    image_size: tuple[int, int],
    known: tuple[np.ndarray, np.ndarray],
    usual: np.ndarray,
) -> keras.Model:
    """Builds a model from uint8 images of any size, shape (B, H, W, K), to its scores.

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
        unusual += rescaled(part, values, LEAST_SPREAD)
    return keras.Model(
        images,
        {
            **normality(unusual, lengths, pp),
            "re": scores.reconstruction_error(inputs, outputs["reconstruction"]),
            "reconstruction": outputs["reconstruction"],
        },
        name=network.name,
    )


def normality(
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


def _pose_distance(network: CapsuleNetwork, images: np.ndarray, labels: np.ndarray) -> keras.Model:
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
