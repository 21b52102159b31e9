import numpy as np
import pytest

from components.data.protocol import (
    CALIBRATION,
    EVAL,
    TEST,
    TRAIN,
    UNUSED,
    hold_out,
    resolve_anomaly,
)
from models.errors import UserError

NAMES = tuple("abcd")
SHARES = {"eval_fraction": 0.1, "calibration_fraction": 0.2, "test_fraction": 0.25}


def labels(*sizes):
    return {
        part: np.random.default_rng(0).permutation(np.arange(size) % 4)
        for part, size in zip(("train", "test"), sizes, strict=False)
    }


def split(of, anomaly=(3,), seed=0, **options):
    return hold_out(of, NAMES, anomaly, seed=seed, **{**SHARES, **options})


@pytest.mark.parametrize("anomaly", [(3,), (0, 2)])
@pytest.mark.parametrize("sizes", [(400, 200), (400,)])
def test_no_anomaly_outside_test_and_a_balanced_test(anomaly, sizes):
    of = labels(*sizes)
    assignment = split(of, anomaly)
    for part, values in of.items():
        is_anomaly = np.isin(values, anomaly)
        assert not np.isin(assignment[part][is_anomaly], (TRAIN, EVAL, CALIBRATION)).any()
    tested = "test" if "test" in of else "train"
    in_test = assignment[tested] == TEST
    counts = [int((in_test & which).sum()) for which in (is_anomaly, ~is_anomaly)]
    assert counts[0] == counts[1] > 0


def test_splits_are_stratified_shares_of_the_training_part():
    of = labels(400, 200)
    assignment = split(of)
    for label in range(3):
        own = assignment["train"][of["train"] == label]
        assert [(own == s).sum() for s in (TRAIN, EVAL, CALIBRATION)] == [70, 10, 20]
    assert set(assignment["test"]) == {TEST, UNUSED}


def test_same_seed_same_splits_other_seed_others():
    of = labels(400, 200)
    first, second, other = split(of), split(of), split(of, seed=1)
    assert all((first[part] == second[part]).all() for part in of)
    assert any((first[part] != other[part]).any() for part in of)


def test_limit_per_class_counts_in_each_part():
    of = labels(400, 200)
    assignment = split(of, limit_per_class=20)
    for label in range(3):
        assert (assignment["train"][of["train"] == label] != UNUSED).sum() == 20
    assert (assignment["test"] == TEST).sum() == 40


def test_too_few_images_of_a_class():
    of = {"train": np.array([0] * 50 + [1] * 3 + [2] * 50 + [3] * 10)}
    with pytest.raises(UserError, match="Class 'b' has 3 images.*at least 4 are needed"):
        split(of)


@pytest.mark.parametrize(
    ("test", "message"), [([0, 1, 2], r"no anomalous \(d\) images"), ([3, 3], "no normal images")]
)
def test_a_one_sided_test_part(test, message):
    with pytest.raises(UserError, match=message):
        split({"train": np.arange(200) % 4, "test": np.array(test)})


def test_anomaly_by_name_or_index():
    assert resolve_anomaly(["d", "0"], NAMES) == (0, 3)
    assert resolve_anomaly(["1"], ("0", "2", "1")) == (2,)  # a name goes before an index


@pytest.mark.parametrize(
    ("anomaly", "message"),
    [
        ([], "No anomaly class is given"),
        (["e"], "Unknown anomaly class 'e': the classes are a, b, c, d"),
        (["4"], "Unknown"),
        (["-1"], "Unknown"),
        (["a", "b", "c"], "leaves 1 normal class;"),
    ],
)
def test_senseless_anomalies(anomaly, message):
    with pytest.raises(UserError, match=message):
        resolve_anomaly(anomaly, NAMES)
