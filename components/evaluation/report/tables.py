"""Tables of a report: pure functions from arrays to rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Rate:
    """A share of images: `count` out of `total`."""

    count: int
    total: int

    @classmethod
    def of(cls, flags: np.ndarray) -> "Rate":
        """Returns the share of `flags`, bool (N,), that are true."""
        return cls(int(flags.sum()), len(flags))

    @property
    def value(self) -> float:
        """The share, in [0, 1]. It is NaN if there are no images."""
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval by Wilson's method. It is NaN if there are no images."""
        if not self.total:
            return float("nan"), float("nan")
        interval = binomtest(self.count, self.total).proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Threshold:
    """The results of the rule "flag an image if its anomaly_score > 1 - alpha"."""

    alpha: float
    false_alarms: Rate
    """Share of the normal images that are flagged."""
    detections: Rate
    """Share of the anomalies that are flagged."""

    @property
    def threshold(self) -> float:
        """The threshold 1 - alpha."""
        return 1 - self.alpha


@dataclass(frozen=True)
class NormalClass:
    """The results for the test images of one normal class."""

    name: str
    images: int
    auroc: dict[str, float]
    """Score name -> auROC against the anomalies. It is NaN if it was not measured."""
    correct: Rate
    false_alarms: Rate | None
    """`None` if there is no threshold."""


@dataclass(frozen=True)
class AnomalyClass:
    """The results for the test images of one anomalous class."""

    name: str
    images: int
    detections: Rate | None
    """`None` if there is no threshold."""
    mistaken_for: str
    """The normal class that is predicted most often. It is empty if there are no images."""
    mistaken: Rate
    """Share of the images for which this class is predicted."""


def thresholds(
    anomaly_score: np.ndarray, is_anomaly: np.ndarray, calibration_size: int
) -> list[Threshold]:
    """Makes one row for each alpha in `ALPHAS` that is above 1 / (n + 1).

    For smaller alphas, the rule would flag nothing, because with n calibration images, no anomaly
    score is above 1 - 1 / (n + 1).

    Args:
        anomaly_score: float (N,), in [0, 1].
        is_anomaly: bool (N,).
        calibration_size: number n of calibration images.
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
    auroc: Mapping[str, Mapping[str, float]],
    scores: Sequence[str],
) -> list[NormalClass]:
    """Makes one row for each normal class.

    Args:
        names: names of the normal classes.
        labels: int (N,), index among `names`, -1 = anomaly.
        predicted: int (N,), index among `names`.
        flagged: bool (N,), or `None` if there is no threshold.
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
    """Makes one row for each anomalous class.

    Args:
        names: names of the anomalous classes.
        normal: names of the normal classes.
        class_text: str (N,), true class.
        labels: int (N,), -1 = anomaly.
        predicted: int (N,), index among `normal`.
        flagged: bool (N,), or `None` if there is no threshold.
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
                normal[int(counts.argmax())] if own.any() else "",
                Rate(int(counts.max()), int(own.sum())),
            )
        )
    return rows


def first_of_each(class_text: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Chooses the first image of each class, then the second image of each class, and so on.

    Args:
        class_text: str (N,), names of the classes.
        among: bool (N,), the images that may be chosen.
        count: largest number of images that are chosen.

    Returns:
        Indices of the chosen images, int (<= count,), sorted by class and then by index.
    """
    places = np.flatnonzero(among)
    _, classes = np.unique(class_text[places], return_inverse=True)
    turn = np.zeros(len(places), int)
    for index in range(classes.max(initial=-1) + 1):
        own = classes == index
        turn[own] = np.arange(own.sum())
    chosen = np.lexsort((classes, turn))[:count]
    return places[chosen[np.lexsort((turn[chosen], classes[chosen]))]]


def variety(reconstructions: np.ndarray, images: np.ndarray) -> float:
    """How much reconstructions differ from one another, as a share of how much images do.

    It is 1 for perfect reconstructions, and 0 if all are the same, such as the mean image.

    Args:
        reconstructions: float (N, H', W', K) in [0, 1].
        images: float (N, H, W, K) in [0, 1].

    Returns:
        Ratio of the mean standard deviations of a pixel. It is 1 if all images are the same.
    """
    differ = float(images.std(axis=0).mean())
    return float(reconstructions.std(axis=0).mean()) / differ if differ else 1.0


def flatten(config: dict[str, object], prefix: str = "") -> dict[str, str]:
    """Turns nested plain values into texts with dotted names, such as `data.source`."""
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
