"""Watches served scores: are the images still like those of the calibration?"""

import math
from dataclasses import dataclass

import numpy as np

from components.serving.served import Served
from models.exchangeability import log_capital, online_p_values


@dataclass(frozen=True)
class Place:
    """An image of the stream."""

    number: int
    """Its number, from 1."""
    name: str


@dataclass(frozen=True)
class Watch:
    """What was found in a stream of served images."""

    images: int
    calibration_images: int
    flagged: float
    """Share of the images that were flagged, in [0, 1]."""
    alpha: float
    """Largest share of normal images that is flagged on average."""
    evidence: float
    """Decimal logarithm of the largest capital of the bets."""
    needed: float
    """Evidence from which there is an alarm."""
    alarm: Place | None
    """Where the alarm was raised."""
    since: Place | None
    """Where the change seems to have begun."""


def watch(served: Served, alpha: float, level: float, seed: int = 0) -> tuple[Watch, np.ndarray]:
    """Looks for a change in the scores.

    Args:
        served: scores in the order in which the images came.
        alpha: share of normal images that may be flagged by mistake.
        level: largest probability of an alarm, at any time, if nothing has changed.
        seed: seed of the order of equal scores.

    Returns:
        What was found, and the decimal logarithm of the capital after each image, float (N,).
    """
    generator = np.random.default_rng(seed)
    p_values = online_p_values(served.anomaly_score, served.calibration_size, generator)
    capital = log_capital(p_values) / math.log(10)
    needed = -math.log10(level)

    def place(index: int) -> Place:
        return Place(index + 1, served.names[index])

    alarm = since = None
    if capital.max() >= needed:
        first = int(np.argmax(capital >= needed))
        alarm = place(first)
        # The game wins from the change on, so it is poorest just before it.
        since = place(int(np.argmin(np.r_[0.0, capital[:first]])))
    flagged = served.anomaly_score.astype("float32") > np.float32(1 - alpha)
    found = Watch(
        images=len(capital),
        calibration_images=served.calibration_size,
        flagged=float(flagged.mean()),
        alpha=alpha,
        evidence=float(capital.max()),
        needed=needed,
        alarm=alarm,
        since=since,
    )
    return found, capital
