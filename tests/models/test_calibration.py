import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.stats import binom

from models.calibration import calibrate
from models.layers import ConformalCalibration
from tests.backends import array


def brightness_scorer():
    images = keras.Input((None, None, 1), dtype="uint8")
    mean = keras.layers.GlobalAveragePooling2D()(keras.ops.cast(images, "float32"))[:, 0]
    return keras.Model(images, {"pp": mean, "re": -mean})


def normal_images(count, seed):
    values = np.random.default_rng(seed).gamma(20, 5, count).clip(0, 255)
    return np.tile(values.astype("uint8")[:, None, None, None], (1, 2, 2, 1))


def calibrated_on(count, seed):
    scorer = brightness_scorer()
    return calibrate(scorer, array(scorer(normal_images(count, seed))["pp"]), "pp")


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_false_alarm_rate_is_at_most_alpha(alpha):
    """Over 40 independent calibrations, for the promise is about calibration and image together."""
    flagged = total = 0
    for seed in range(40):
        scorer = calibrated_on(300, seed)
        anomaly_score = array(scorer(normal_images(500, 1000 + seed))["anomaly_score"])
        flagged += (anomaly_score > 1 - alpha).sum()
        total += len(anomaly_score)
    # Two images share a calibration, so the spread is wider than binomial: Beta-binomial's.
    spread = np.sqrt(alpha * (1 - alpha) / total * (1 + 500 / 302))
    assert flagged / total <= alpha + 3 * spread
    assert flagged / total >= alpha / 3 - 3 * spread  # ties make it cautious, not silent


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_false_alarms_on_held_out_normal_digits_of_a_trained_detector(trained_digits, alpha):
    rate, count = trained_digits(alpha)
    # The 99.9 % quantile of what calibration on 100 and testing on `count` images can give.
    highest = binom.ppf(0.999, count, min(1, alpha + 3 * np.sqrt(alpha * (1 - alpha) / 300)))
    assert rate * count <= highest


@pytest.fixture(scope="module")
def trained_digits():
    from components.data import sources
    from models import detectors

    source = sources.get("digits")
    labels = source.labels()["train"]
    images = np.stack(list(source.read("train", 0, len(labels))))
    normal = np.flatnonzero(labels < 5)
    train, calibration, test = np.split(np.random.default_rng(0).permutation(normal), [300, 600])
    detector = detectors.get(
        "capsnet",
        epochs=4,
        batch_size=30,
        learning_rate=0.005,
        filters=32,
        kernel_size=3,
        primary_types=4,
        primary_kernel_size=3,
        decoder_units=(64,),
    )
    scorer = detector.fit(images[train], labels[train], calibration=images[calibration])
    scores = array(scorer(images[test])["anomaly_score"])
    return lambda alpha: ((scores > 1 - alpha).mean(), len(scores))


def test_p_value_counts_scores_at_most_as_high():
    layer = ConformalCalibration(4)
    layer.build((None,))
    layer.calibrate(np.array([3.0, 1.0, 2.0, 2.0]))
    scores = np.array([0.5, 1.0, 2.0, 2.5, 9.0, np.nan], "float32")
    p_values = np.array([1, 2, 4, 4, 5, 1]) / 5
    np.testing.assert_allclose(layer(scores), 1 - p_values, atol=1e-6)


def test_calibration_keeps_the_raw_scores_and_their_order():
    scorer = brightness_scorer()
    calibrated = calibrate(scorer, array(scorer(normal_images(50, 0))["pp"]), "pp")
    images = normal_images(30, 1)
    outputs = calibrated(images)
    np.testing.assert_array_equal(outputs["pp"], scorer(images)["pp"])
    order = np.argsort(-array(outputs["pp"]))
    assert (np.diff(array(outputs["anomaly_score"])[order]) >= -1e-6).all()


@pytest.mark.parametrize(
    ("scores", "message"), [([1.0], "Expected 2"), ([1.0, np.nan], "NaN"), ([np.inf, 0], "NaN")]
)
def test_unfit_scores_are_refused(scores, message):
    layer = ConformalCalibration(2)
    layer.build((None,))
    with pytest.raises(ValueError, match=message):
        layer.calibrate(np.array(scores))


def test_nothing_to_calibrate_on():
    with pytest.raises(ValueError, match="No images"):
        calibrate(brightness_scorer(), np.zeros(0), "pp")


def test_the_table_of_the_docs_is_that_of_a_simulation():
    """The share of normal scores that one calibrated model flags, for many calibration sets."""
    page = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text()
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|", page, re.MULTILINE)
    assert len(rows) == 6
    generator = np.random.default_rng(0)
    for text, least, low, high in rows:
        count = int(text.replace(",", ""))
        assert float(least) == pytest.approx(1 / (count + 1), abs=5e-5)
        # p = (k + 1) / (n + 1) of k scores at most s: what is below the last of these is flagged.
        flagging = math.ceil(0.05 * (count + 1)) - 1
        drawn = np.partition(generator.random((3000, count)), flagging - 1, axis=1)
        rates = drawn[:, flagging - 1]
        assert rates.mean() <= 0.05 + 3 * rates.std() / np.sqrt(len(rates))
        found = np.quantile(rates, [0.05, 0.95])
        np.testing.assert_allclose(found, [float(low), float(high)], atol=0.004)
