"""One-class support vector machine on the features of a convolutional classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from models.detectors.base import setting
from models.detectors.cnn_softmax import CnnDetector
from models.detectors.network import outputs_on

if TYPE_CHECKING:
    import keras

_GAMMAS = (4.0, 2.0, 1.0, 0.5, 0.25)  # times scikit-learn's "scale", 1 / dimension


@dataclass(kw_only=True)
class CnnOcsvmDetector(CnnDetector):
    """Scores by the decision function of scikit-learn's machine (`svm`), features standardised.

    The kernel's width is chosen on normal images alone: a fifth of them is kept aside, and the
    narrowest kernel is taken (of 4, 2, 1, 1/2, 1/4 times 1 / dimension) of whose boundary no more
    than `nu`, by a margin of two standard errors, is left outside; the widest if there is none.

    Reference:
        arXiv 1907.06312, section 4; Schoelkopf et al. 2001.
    """

    name: ClassVar[str] = "cnn_ocsvm"
    title: ClassVar[str] = "CNN with a one-class SVM"
    reference: ClassVar[str] = "arXiv 1907.06312"
    scores: ClassVar[tuple[str, ...]] = ("svm",)
    calibrated_score: ClassVar[str] = "svm"

    nu: float = setting(0.1, "Share of training images left outside the boundary, at most.")
    exact_limit: int = setting(
        5000,
        "Images up to which the kernel matrix is computed; above, Nystroem's approximation and "
        "stochastic gradient descent.",
    )
    landmarks: int = setting(500, "Landmarks of Nystroem's approximation.")

    def train(self, images, labels, validation, callbacks) -> keras.Model:
        """Trains the classifier, then the machine on its features."""
        import keras

        from models.layers import ImagePreprocessing, RbfOneClass

        network = self.train_cnn(images, labels, validation, callbacks)
        features = outputs_on(keras.Model(network.input, network.output["features"]), images)
        machine = fit_machine(features, self.nu, self.exact_limit, self.landmarks, self.seed)
        inputs = keras.Input((None, None, images.shape[-1]), dtype="uint8", name="images")
        outputs = network(ImagePreprocessing(images.shape[1:3], name="preprocessing")(inputs))
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
    features: np.ndarray, nu: float, exact_limit: int, landmarks: int, seed: int
) -> dict:
    """Fits scikit-learn's machine to features (N, D); see `CnnOcsvmDetector`.

    Returns:
        `gamma`, and the arguments of `RbfOneClass.set_machine`.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-6, scale, 1.0).astype("float32")
    standardised = ((features - mean) / scale).astype("float64")
    order = np.random.default_rng(seed).permutation(len(standardised))
    held = order[: max(1, len(order) // 5)]
    kept = order[len(held) :] if len(order) > 1 else order
    tolerated = nu + 2 * np.sqrt(nu * (1 - nu) / len(held))
    exact = len(standardised) <= exact_limit
    for factor in _GAMMAS:
        gamma = factor / standardised.shape[1]
        machine = _fit(standardised[kept], nu, gamma, exact, landmarks, seed)
        if np.mean(_decision(machine, gamma, standardised[held]) < 0) <= tolerated:
            break
    machine = _fit(standardised, nu, gamma, exact, landmarks, seed)
    return {"gamma": gamma, "mean": mean, "scale": scale, **machine}


def _fit(features, nu, gamma, exact, landmarks, seed):
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


def _decision(machine, gamma, features):
    from sklearn.metrics.pairwise import rbf_kernel

    kernel = rbf_kernel(features, machine["centre"], gamma=gamma)
    return kernel @ machine["coefficients"] + machine["intercept"]
