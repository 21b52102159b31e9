import numpy as np
import pytest
from sklearn.base import clone, is_outlier_detector
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score

import capsad

QUICK = {"epochs": 5, "units": (50,)}
FOLDS = StratifiedKFold(2, shuffle=True, random_state=0)


def one_digit(normal, outlier):
    """Images of one digit, and of another as outliers; and 1 or -1."""
    data = load_digits()
    images = (data.images * 15).astype("uint8").repeat(2, axis=1).repeat(2, axis=2)
    chosen = np.concatenate(
        [np.flatnonzero(data.target == normal)[:150], np.flatnonzero(data.target == outlier)[:30]]
    )
    return images[chosen], np.where(data.target[chosen] == outlier, -1, 1)


@pytest.fixture(scope="module")
def digits():
    return one_digit(0, 4)


@pytest.fixture(scope="module")
def fitted(digits):
    return capsad.AnomalyDetector("dbn", QUICK, alpha=0.1).fit(*digits)


def test_parameters_are_only_stored():
    settings = {"epochs": "many"}
    estimator = capsad.AnomalyDetector("unknown", settings, alpha=7)
    assert estimator.get_params() == {
        "detector": "unknown",
        "settings": settings,
        "alpha": 7,
        "random_state": 0,
    }
    assert estimator.settings is settings
    assert is_outlier_detector(estimator)
    copy = clone(estimator.set_params(alpha=0.2, detector="dbn"))
    assert copy.get_params() == estimator.get_params() and copy.alpha == 0.2


def test_nothing_is_computed_before_it_is_fitted(digits):
    with pytest.raises(NotFittedError):
        capsad.AnomalyDetector().predict(digits[0])


def test_signs_are_those_of_scikit_learn(fitted, digits):
    images, y = digits
    assert fitted.fit(*digits) is fitted
    scores, decision = fitted.score_samples(images), fitted.decision_function(images)
    assert roc_auc_score(y, scores) > 0.9
    np.testing.assert_allclose(decision, scores - fitted.offset_)
    predicted = fitted.predict(images)
    assert set(predicted) == {1, -1}
    np.testing.assert_array_equal(predicted == -1, decision < 0)
    assert (predicted[y == -1] == -1).mean() > 0.8
    assert (predicted[y == 1] == -1).mean() < 0.2


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.35])
def test_the_threshold_is_that_of_alpha(alpha, digits):
    images, y = digits
    estimator = capsad.AnomalyDetector("dbn", QUICK, alpha=alpha).fit(images, y)
    flagged = estimator.detector_.score(images).flagged(alpha)
    np.testing.assert_array_equal(estimator.predict(images) == -1, flagged)
    # Between 30 calibration scores: floor(31 alpha) - 1 of them are below the threshold.
    calibration = estimator.detector_.scorer.get_layer("anomaly_score").calibration_scores
    below = (np.asarray(calibration) < estimator.offset_).sum()
    assert below == np.ceil(31 * alpha) - 2
    assert estimator.offset_ in np.asarray(calibration)


def test_too_few_images_for_alpha_are_refused(digits):
    images, y = digits
    estimator = capsad.AnomalyDetector("dbn", QUICK, alpha=0.03)
    with pytest.raises(capsad.UserError, match="30 images, so alpha must be above 0.0323"):
        estimator.fit(images, y)
    for wrong in (0, 1.5):
        with pytest.raises(capsad.UserError, match="above 0 and below 1"):
            estimator.set_params(alpha=wrong).fit(images, y)
    with pytest.raises(capsad.UserError, match="leave seed out"):
        capsad.AnomalyDetector("dbn", {"seed": 1}).fit(images, y)


def test_the_random_state_is_the_seed(digits, fitted):
    images, y = digits

    def scores(random_state):
        estimator = capsad.AnomalyDetector("dbn", QUICK, 0.1, random_state)
        return estimator.fit(images, y).score_samples(images)

    np.testing.assert_array_equal(scores(0), fitted.score_samples(images))
    assert (scores(1) != scores(0)).any()
    same = [scores(np.random.RandomState(3)) for _ in range(2)]
    np.testing.assert_array_equal(*same)


def test_without_y_all_images_are_normal(digits):
    images, y = digits
    estimator = capsad.AnomalyDetector("dbn", QUICK, alpha=0.1)
    predicted = estimator.fit_predict(images[y == 1])
    assert estimator.detector_.metadata["classes"] == ["normal"]
    assert 0 < (predicted == -1).mean() < 0.2


def test_cross_validation_and_grid_search():
    images, y = one_digit(3, 9)  # harder, so that settings make a difference
    estimator = capsad.AnomalyDetector("dbn", QUICK, alpha=0.2)
    found = cross_val_score(estimator, images, y, scoring="roc_auc", cv=FOLDS, error_score="raise")
    by_hand = []
    for train, test in FOLDS.split(images, y):
        copy = clone(estimator).fit(images[train], y[train])
        by_hand.append(roc_auc_score(y[test], copy.score_samples(images[test])))
    np.testing.assert_allclose(found, by_hand)
    assert found.min() > 0.7

    too_fast = {"epochs": 5, "units": (100,), "learning_rate": 0.5}
    grid = {"settings": [too_fast, QUICK]}
    search = GridSearchCV(estimator, grid, scoring="roc_auc", cv=FOLDS, error_score="raise")
    search.fit(images, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"][1], found.mean())
    assert search.best_params_ == {"settings": QUICK}
    assert set(search.predict(images)) == {1, -1}
    accuracy = make_scorer(lambda y, predicted: ((y == -1) == (predicted == -1)).mean())
    assert cross_val_score(estimator, images, y, scoring=accuracy, cv=FOLDS).min() > 0.7
