import numpy as np
import pytest
from scipy.stats import kstest

from models.exchangeability import log_capital, online_p_values

SIZE = 1000
ALARM = np.log(100)  # level 0.01


def scored(calibration, values):
    """The anomaly scores of a stream of normality scores, as the model's layer computes them."""
    at_most = np.searchsorted(np.sort(calibration), values, side="right")
    return (1 - (1 + at_most) / (len(calibration) + 1)).astype("float32")


def capital(calibration, values, seed=0):
    generator = np.random.default_rng(seed)
    return log_capital(online_p_values(scored(calibration, values), len(calibration), generator))


def found_after(stream, seeds=20):
    """Number of images up to the alarm, for several streams."""
    counts = []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        rose = capital(generator.normal(size=SIZE), stream(generator), seed) >= ALARM
        counts.append(int(np.argmax(rose)) + 1 if rose.any() else np.inf)
    return np.array(counts)


def test_p_values_are_uniform_and_independent():
    generator = np.random.default_rng(0)
    # With 20 calibration images, p-values among these alone would be far from independent.
    streams = [
        online_p_values(scored(generator.normal(size=20), generator.normal(size=50)), 20, generator)
        for _ in range(400)
    ]
    values = np.array(streams)
    assert kstest(values.ravel(), "uniform").pvalue > 0.01
    assert abs(np.corrcoef(values[:, 10], values[:, 40])[0, 1]) < 0.15
    means = values.mean(axis=1)
    assert means.std() == pytest.approx(np.sqrt(1 / 12 / 50), rel=0.1)


def test_the_capital_is_that_of_the_bets():
    # The first image, before any capital moves: half is not bet, five bets have a tenth each.
    p_value = 0.2
    bets = [power * p_value ** (power - 1) for power in (0.5, 0.8, 0.95)]
    bets += [1 + line * (p_value - 0.5) for line in (-1, 1)]
    (first,) = log_capital(np.array([p_value]))
    assert np.exp(first) == pytest.approx(0.5 + sum(bets) / 10)


def test_a_fair_game_wins_nothing_on_average():
    values = np.random.default_rng(0).random((4000, 10))
    won = np.exp([log_capital(stream)[-1] for stream in values])
    assert won.mean() == pytest.approx(1, abs=0.03)


def test_without_a_change_at_most_one_stream_in_a_hundred_alarms():
    alarms = 0
    for seed in range(1000):
        generator = np.random.default_rng(seed)
        stream = capital(generator.normal(size=SIZE), generator.normal(size=500), seed)
        alarms += stream.max() >= ALARM
    assert alarms <= 10


def test_a_new_kind_of_image_is_found():
    """5 % of the images are of a new kind, far from all others, from the start."""

    def stream(generator):
        values = generator.normal(size=2000)
        return np.where(generator.random(2000) < 0.05, values - 4, values)

    counts = found_after(stream)
    assert np.quantile(counts, 0.9) <= 1000
    assert np.median(counts) <= 500


def test_a_shift_is_found_late_too():
    """All scores sink by 0.5 standard deviations after 5,000 images in which nothing changes."""

    def stream(generator):
        return np.r_[generator.normal(size=5000), generator.normal(-0.5, size=1000)]

    counts = found_after(stream, seeds=10)
    assert (counts > 5000).all()
    assert np.median(counts) <= 5300
    assert counts.max() <= 5600


def test_images_that_become_more_normal_are_a_change_too():
    counts = found_after(lambda generator: generator.normal(0.5, size=1000), seeds=10)
    assert counts.max() <= 500
