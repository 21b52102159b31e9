"""Tables of a report: pure functions from arrays to rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Rate:
    """A share of images: `count` of `total`."""

    count: int
    total: int

    @classmethod
    def of(cls, flags: np.ndarray) -> "Rate":
        """How many of `flags`, bool (N,), are set."""
        return cls(int(flags.sum()), len(flags))

    @property
    def value(self) -> float:
        """In [0, 1]; NaN without images."""
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval by Wilson's method; NaN without images."""
        if not self.total:
            return float("nan"), float("nan")
        interval = binomtest(self.count, self.total).proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Threshold:
    """What the rule "flag when anomaly_score > 1 - alpha" did."""

    alpha: float
    false_alarms: Rate
    """Among the normal images."""
    detections: Rate
    """Among the anomalies."""

    @property
    def threshold(self) -> float:
        """1 - alpha."""
        return 1 - self.alpha


@dataclass(frozen=True)
class NormalClass:
    """How the test images of one normal class fared."""

    name: str
    images: int
    auroc: dict[str, float]
    """Score name -> auROC against the anomalies; NaN where it was not measured."""
    correct: Rate
    false_alarms: Rate | None
    """`None`: no threshold to judge by."""


@dataclass(frozen=True)
class AnomalyClass:
    """How the test images of one anomalous class fared."""

    name: str
    images: int
    detections: Rate | None
    """`None`: no threshold to judge by."""
    mistaken_for: str
    """The normal class predicted most often; empty without images."""
    mistaken: Rate


def thresholds(
    anomaly_score: np.ndarray, is_anomaly: np.ndarray, calibration_size: int
) -> list[Threshold]:
    """One row for each alpha in `ALPHAS` that the calibration can resolve.

    The largest anomaly score among n calibration images is 1 - 1 / (n + 1): for any alpha up to
    1 / (n + 1) the rule would flag nothing.

    Args:
        anomaly_score: float (N,), in [0, 1].
        is_anomaly: bool (N,).
        calibration_size: n.
    """
    return [
        Threshold(
            alpha,
            Rate.of(anomaly_score[~is_anomaly] > 1 - alpha),
            Rate.of(anomaly_score[is_anomaly] > 1 - alpha),
        )
        for alpha in ALPHAS
        if alpha * (calibration_size + 1) > 1
    ]


def normal_classes(
    names: Sequence[str],
    labels: np.ndarray,
    predicted: np.ndarray,
    flagged: np.ndarray | None,
    auroc: dict[str, dict[str, float]],
    scores: Sequence[str],
) -> list[NormalClass]:
    """One row for each normal class.

    Args:
        names: of the normal classes.
        labels: int (N,), index among `names`, -1 = anomaly.
        predicted: int (N,), index among `names`.
        flagged: bool (N,), `None` without a threshold.
        auroc: normal class -> score name -> auROC against the anomalies.
        scores: names of the scores.
    """
    rows = []
    for label, name in enumerate(names):
        own = labels == label
        rows.append(
            NormalClass(
                name,
                int(own.sum()),
                {score: auroc.get(name, {}).get(score, float("nan")) for score in scores},
                Rate.of(predicted[own] == label),
                None if flagged is None else Rate.of(flagged[own]),
            )
        )
    return rows


def anomaly_classes(
    names: Sequence[str],
    normal: Sequence[str],
    class_text: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    flagged: np.ndarray | None,
) -> list[AnomalyClass]:
    """One row for each anomalous class.

    Args:
        names: of the anomalous classes.
        normal: names of the normal classes.
        class_text: str (N,), true class.
        labels: int (N,), -1 = anomaly.
        predicted: int (N,), index among `normal`.
        flagged: bool (N,), `None` without a threshold.
    """
    rows = []
    for name in names:
        own = (class_text == name) & (labels < 0)
        counts = np.bincount(predicted[own], minlength=len(normal))
        rows.append(
            AnomalyClass(
                name,
                int(own.sum()),
                None if flagged is None else Rate.of(flagged[own]),
                normal[counts.argmax()] if own.any() else "",
                Rate(int(counts.max()), int(own.sum())),
            )
        )
    return rows


def first_of_each(class_text: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Indices, int (<= count,), of the first image of each class, then the second of each, ...

    Args:
        class_text: str (N,).
        among: bool (N,), which images to choose from.
        count: how many to choose.

    Returns:
        The chosen, sorted by class and then in order.
    """
    places = np.flatnonzero(among)
    _, classes = np.unique(class_text[places], return_inverse=True)
    turn = np.zeros(len(places), int)
    for index in range(classes.max(initial=-1) + 1):
        own = classes == index
        turn[own] = np.arange(own.sum())
    chosen = np.lexsort((classes, turn))[:count]
    return places[chosen[np.lexsort((turn[chosen], classes[chosen]))]]


def flatten(config: dict[str, object], prefix: str = "") -> dict[str, str]:
    """Nested plain values as text under dotted names."""
    flat = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(flatten(value, f"{name}."))
        elif isinstance(value, list | tuple):
            flat[name] = ", ".join(map(str, value))
        else:
            flat[name] = str(value)
    return flat
