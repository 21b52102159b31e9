import numpy as np
import pytest

from models import detectors
from models.errors import UserError
from models.sampling import BALANCE, balance, stratified
from tests.backends import array


def test_classes_that_are_not_so_rare_stay_as_they_are():
    labels = np.array([0] * 40 + [1] * 2)
    assert balance(labels).tolist() == list(range(42))


def test_images_of_rare_classes_are_repeated_up_to_one_in_twenty():
    labels = np.array([0] * 1000 + [1] * 7 + [2] * 60)
    places = balance(labels)
    assert places[:1067].tolist() == list(range(1067))
    counts = np.bincount(labels[places])
    assert counts.tolist() == [1000, 1000 // BALANCE, 60]
    repeats = np.bincount(places)[1000:1007]
    assert repeats.max() - repeats.min() <= 1


def test_no_class_is_lost_in_a_draw():
    labels = np.array([0] * 9000 + [1] * 900 + [2] * 3)
    chosen = stratified(labels, 500, np.random.default_rng(0))
    assert len(chosen) == len(set(chosen.tolist()))
    counts = np.bincount(labels[chosen])
    assert counts[2] == 3
    assert counts[1] == 50
    assert abs(counts[0] - 454) <= 1
    assert sorted(stratified(labels[:400], 500, np.random.default_rng(0))) == list(range(400))


def test_a_rare_class_gives_finite_scores(toys, tiny):
    images, labels = toys(300, 3, seed=0)
    keep = (labels != 2) | (np.arange(300) < 9)  # three images of the last class
    detector = detectors.get("capsnet", epochs=1, batch_size=30, **tiny)
    scorer = detector.fit(images[keep], labels[keep], calibration=images[:20])
    for name, values in scorer(images[:30]).items():
        assert np.isfinite(array(values)).all(), name


def test_validation_labels_are_those_of_the_training(toys, tiny):
    images, labels = toys(60, 3, seed=0)
    detector = detectors.get("capsnet", epochs=1, **tiny)
    with pytest.raises(UserError, match=r"Validation labels must be 0 to 2.*found \[-1, 0, 1, 2\]"):
        detector.fit(images, labels, validation=(images[:6], np.r_[labels[:5], -1]))
