"""One-class support vector machine on the features of a convolutional classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.detectors.cnn_softmax import CnnDetector
from models.detectors.settings import setting
from models.errors import UserError
from models.inference import outputs_on

if TYPE_CHECKING:
    import keras

_GAMMAS = (32.0, 16.0, 8.0, 4.0, 2.0, 1.0)  # multiples of scikit-learn's "scale"
_LEAST_VARIANCE = 1e-12  # any less is rounding error in vectors of length 1
_CHOSEN_ON = 2000  # largest number of images for the choice of gamma


@dataclass(kw_only=True)
class CnnOcsvmDetector(CnnDetector):
    """Scores images by the decision function of scikit-learn's one-class SVM (`svm`).

    Features are scaled to unit length. The gamma of the kernel is 32, 16, 8, 4, 2 or 1 times
    scikit-learn's "scale", and is chosen with normal images alone. Each normal class is left out in
    turn. The chosen gamma best separates the left-out class from new images of the other classes.

    Reference:
        arXiv 1907.06312, section 4; Schoelkopf et al. 2001.
    """

    name: ClassVar[str] = "cnn_ocsvm"
    title: ClassVar[str] = "CNN with a one-class SVM"
    reference: ClassVar[str] = "arXiv 1907.06312"
    scores: ClassVar[tuple[str, ...]] = ("svm",)
    default_rates: ClassVar[dict[str, float]] = {"linear": 0.001, "one_cycle": 0.02}

    nu: float = setting(0.1, "Largest share of training images outside the boundary.", most=1)
    exact_limit: int = setting(
        5000,
        "Largest number of images for which the exact kernel matrix is computed. For more images, "
        "Nystroem's approximation and stochastic gradient descent are used.",
    )
    landmarks: int = setting(500, "Number of landmarks of Nystroem's approximation.")

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: tuple[keras.callbacks.Callback, ...],
    ) -> keras.Model:
        """Trains the classifier, and then the SVM on its features."""
        import keras

        from models.layers import RbfOneClass

        network = self.train_cnn(images, labels, validation, callbacks)
        features = outputs_on(
            keras.Model(network.input, network.output["features"]), self.seen(images)
        )
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        machine = fit_machine(
            features, labels, self.nu, self.exact_limit, self.landmarks, self.seed
        )
        inputs, scaled = self.scorer_input(images)
        outputs = network(scaled)
        layer = RbfOneClass(len(machine["centre"]), machine.pop("gamma"), name="svm")
        svm = layer(outputs["features"])
        layer.set_machine(**machine)
        return keras.Model(
            inputs,
            {
                "svm": svm,
                "class_probabilities": keras.ops.softmax(outputs["logits"], axis=-1),
            },
            name=self.name,
        )


def fit_machine(
    features: np.ndarray,
    labels: np.ndarray,
    nu: float,
    exact_limit: int,
    landmarks: int,
    seed: int,
) -> dict[str, Any]:
    """Fits the SVM to features (N, D) of unit length, as `CnnOcsvmDetector` describes.

    Returns:
        Dict of `gamma` and the arguments of `RbfOneClass.set_machine`.

    Raises:
        UserError: if all features are equal.
    """
    features = features.astype("float64")
    if features.var(axis=0).max() < _LEAST_VARIANCE:
        raise UserError(
            "The network gives all training images the same features: lower learning_rate, or set "
            "standardise=true.",
            "learning_rate",
            "standardise",
        )
    gamma = _choose_gamma(features, labels, nu, seed)
    exact = len(features) <= exact_limit
    return {"gamma": gamma, **_fit(features, nu, gamma, exact, landmarks, seed)}


def _choose_gamma(features: np.ndarray, labels: np.ndarray, nu: float, seed: int) -> float:
    from models.metrics import auroc

    order = np.random.default_rng(seed).permutation(len(features))[:_CHOSEN_ON]
    features, labels = features[order], labels[order]
    aside = np.arange(len(features)) % 3 == 0

    def separates(gamma: float) -> float:
        values = []
        for label in np.unique(labels):
            out = labels == label
            tested = aside | out
            if out.all() or out[tested].all() or not (~tested).any():
                continue
            machine = _fit(features[~tested], nu, gamma, True, 0, seed)
            values.append(auroc(-_decision(machine, gamma, features[tested]), out[tested]))
        return float(np.mean(values)) if values else 0.0

    return max((factor / features.var() / features.shape[1] for factor in _GAMMAS), key=separates)


def _fit(
    features: np.ndarray, nu: float, gamma: float, exact: bool, landmarks: int, seed: int
) -> dict[str, Any]:
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import SGDOneClassSVM
    from sklearn.svm import OneClassSVM

    if exact:
        machine = OneClassSVM(gamma=gamma, nu=nu).fit(features)
        return {
            "centre": machine.support_vectors_,
            "coefficients": machine.dual_coef_[0],
            "intercept": float(machine.intercept_[0]),
        }
    count = min(landmarks, len(features))
    nystroem = Nystroem(gamma=gamma, n_components=count, random_state=seed)
    mapped = nystroem.fit_transform(features)
    machine = SGDOneClassSVM(nu=nu, random_state=seed, average=True).fit(mapped)
    return {
        "centre": nystroem.components_,
        "coefficients": nystroem.normalization_.T @ machine.coef_,
        "intercept": float(-machine.offset_[0]),
    }


def _decision(machine: dict[str, Any], gamma: float, features: np.ndarray) -> np.ndarray:
    from sklearn.metrics.pairwise import rbf_kernel

    kernel = rbf_kernel(features, machine["centre"], gamma=gamma)
    return kernel @ machine["coefficients"] + machine["intercept"]
