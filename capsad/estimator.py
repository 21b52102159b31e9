"""Detectors as an estimator of scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import keras
import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from capsad.detector import fit
from capsad.result import check_alpha
from components.serving.rows import cannot_flag, exceeds
from models.errors import UserError
from models.score_names import ANOMALY_SCORE, LEAST_ALPHA


class AnomalyDetector(OutlierMixin, BaseEstimator):
    """A detector with the names and signs of scikit-learn's outlier detection.

    Images X are uint8 arrays, shape (N, H, W) or (N, H, W, K), where K is 1 or 3.

    After `fit` there are these attributes: `detector_`, the `FittedDetector`, and `offset_`, the
    score at the threshold, `decision_function = score_samples - offset_`.

    Args:
        detector: name of the detector, see `capsad.detectors`.
        settings: its settings in place of the defaults, such as `{"epochs": 5}`.
        alpha: share of normal images that may be taken for outliers by mistake, in (0, 1).
        random_state: seed: a whole number, and else as everywhere in scikit-learn.

    Reference:
        The threshold is that of conformal p-values, see docs/calibration.md. The interface is that
        of sklearn.ensemble.IsolationForest.
    """

    def __init__(
        self,
        detector: str = "capsnet",
        settings: dict[str, Any] | None = None,
        alpha: float = 0.05,
        random_state: int | np.random.RandomState | None = 0,
    ):
        self.detector = detector
        self.settings = settings
        self.alpha = alpha
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: Any = None) -> Self:
        """Trains and calibrates the detector on the normal images, see `capsad.fit`.

        Args:
            X: images.
            y: normal class of each image; -1 marks an outlier, as in scikit-learn, and is not
                used. So y may also be 1 for all normal images. `None`: all are normal.

        Raises:
            UserError: as `capsad.fit`, or if fewer images are kept for calibration than `alpha`
                needs, which is a fifth of them.
        """
        check_alpha(self.alpha)
        settings = self.settings or {}
        if "seed" in settings:
            raise UserError("random_state is the seed: leave seed out of the settings.", "seed")
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        self.detector_ = fit(X, y, self.detector, seed=int(seed), **settings)
        self.offset_ = self._offset()
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Computes the score that is calibrated, float64 (N,), higher = more normal.

        It is the detector's raw score, which has fewer ties than `anomaly_score`.
        """
        check_is_fitted(self)
        return self.detector_.score(X)[self._name()].astype("float64")

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Computes how far images are from the threshold, float64 (N,), negative = outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Tells outliers, -1, from others, 1: int (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _name(self) -> str:
        return self.detector_.metadata["calibrated_score"]

    def _offset(self) -> float:
        """The lowest calibration score that is not flagged: what is below it is flagged."""
        calibration = self.detector_.scorer.get_layer(ANOMALY_SCORE)
        scores = keras.ops.convert_to_numpy(calibration.calibration_scores)
        least = {LEAST_ALPHA: np.array([self.detector_.metadata["least_alpha"]], "float32")}
        if message := cannot_flag(least, self.alpha):
            raise UserError(f"{message} Give more images, or a larger alpha.", "alpha")
        anomaly_scores = keras.ops.convert_to_numpy(calibration(scores))
        return float(scores[~exceeds(anomaly_scores, self.alpha)].min())
