"""Tests, one image after another, whether images are still like those of the calibration.

If they are exchangeable with the calibration images, the p-values below are independent and
uniform. A game of bets against that multiplies its capital by 100 with a probability of at most
1 % (Ville's inequality), however long it goes on. So much capital is evidence of a change.

Reference:
    Vovk, Gammerman, Shafer 2022, Algorithmic learning in a random world, second edition, chapter 8;
    Vovk et al. 2021, Retrain or not retrain: conformal test martingales for change-point detection,
    arXiv 2102.10439.
"""

import bisect

import numpy as np

# A bet is a density on [0, 1]. Powers win on small p-values, that is on unusual images, and lines
# win if p-values are small or large on the whole. The first bet is none.
_POWERS, _LINES = (0.5, 0.8, 0.95), (-1.0, 1.0)
_NO_BET = 0.5  # share of the capital that is not bet at first
# Share of the capital that moves between the bets after each image, so that a late change is found,
# too. Each share plays with a quarter of the capital.
_MOVED = (1e-2, 1e-3, 1e-4, 1e-5)


def online_p_values(
    anomaly_score: np.ndarray, calibration_size: int, generator: np.random.Generator
) -> np.ndarray:
    """Computes the p-value of each image among the calibration images and all images before it.

    An anomaly score tells only between which calibration images an image stands. Where several
    images stand in the same gap, their order is drawn.

    Args:
        anomaly_score: scores of `ConformalCalibration`, shape (N,), in the order of the images.
        calibration_size: number n of calibration images.
        generator: draws the order within gaps.

    Returns:
        float (N,), in (0, 1); small for unusual images. Independent and uniform if the images are
        exchangeable with the calibration images and no two scores are equal.
    """
    places = np.rint((1 - np.asarray(anomaly_score, "float64")) * (calibration_size + 1)) - 1
    draws = generator.random(len(places))
    seen: list[int] = []
    values = np.empty(len(places))
    for number, place in enumerate(places.astype(int).clip(0, calibration_size)):
        lower, upper = bisect.bisect_left(seen, place), bisect.bisect_right(seen, place)
        # Below are `place` gaps with `lower` images, and in its own gap there are
        # `upper - lower + 1` places for it.
        rank = lower + place + draws[number] * (upper - lower + 1)
        values[number] = rank / (calibration_size + 1 + number)
        seen.insert(upper, place)
    return values


def log_capital(p_values: np.ndarray) -> np.ndarray:
    """Computes the logarithm of the capital after each image; it begins with 0.

    Args:
        p_values: float (N,), in [0, 1].

    Returns:
        float (N,).
    """
    values = np.maximum(np.asarray(p_values, "float64"), 1e-12)
    # N, bets
    won = np.stack(
        [
            np.ones_like(values),
            *(power * values ** (power - 1) for power in _POWERS),
            *(1 + line * (values - 0.5) for line in _LINES),
        ],
        axis=1,
    )
    others = won.shape[1] - 1
    first = np.r_[_NO_BET, np.full(others, (1 - _NO_BET) / others)]
    moved = np.array(_MOVED)[:, None]
    # games, bets
    shares = np.tile(first, (len(_MOVED), 1))
    games = np.zeros(len(_MOVED))
    capital = np.empty(len(values))
    for number, factors in enumerate(won):
        shares = shares * factors
        whole = shares.sum(axis=1)
        games += np.log(whole)
        shares = (1 - moved) * shares / whole[:, None] + moved * first
        capital[number] = np.logaddexp.reduce(games) - np.log(len(games))
    return capital
