import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sklearn_metrics

from models import metrics


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 10, 1000000])
def test_auroc_equals_scikit_learn_with_ties(seed, levels):
    generator = np.random.default_rng(seed)
    is_anomaly = generator.random(500) < 0.3
    scores = generator.integers(0, levels, 500) - 1e3 * generator.random() + is_anomaly
    expected = sklearn_metrics.roc_auc_score(is_anomaly, scores)
    assert metrics.auroc(scores, is_anomaly) == pytest.approx(expected, abs=1e-12)


def test_known_values():
    is_anomaly = np.array([0, 0, 1, 1])
    assert metrics.auroc([1, 2, 3, 4], is_anomaly) == 1
    assert metrics.auroc([4, 3, 2, 1], is_anomaly) == 0
    assert metrics.auroc([1, 1, 1, 1], is_anomaly) == 0.5
    assert metrics.auroc([1, 3, 2, 4], is_anomaly) == 0.75
    assert metrics.aupr([1, 3, 2, 4], is_anomaly) == pytest.approx((1 + 2 / 3) / 2)


def test_fpr_at_tpr_counts_the_normals_above_the_threshold():
    anomalies, normals = np.arange(100, 200), np.r_[np.arange(90), np.full(10, 150)]
    is_anomaly = np.r_[np.ones(100), np.zeros(100)]
    # 95 % of the anomalies lie at 105 or above, and so do the ten normals at 150.
    assert metrics.fpr_at_tpr(np.r_[anomalies, normals], is_anomaly) == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(20))
def test_fpr_at_tpr_is_that_of_its_definition_with_ties(seed):
    generator = np.random.default_rng(seed)
    is_anomaly = generator.random(60) < 0.4
    scores = generator.integers(0, 8, 60) + 2 * is_anomaly
    for tpr in (0.5, 0.95, 1.0):
        # The highest threshold that flags a share tpr of the anomalies.
        expected = next(
            (scores[~is_anomaly] >= threshold).mean()
            for threshold in np.unique(scores)[::-1]
            if (scores[is_anomaly] >= threshold).mean() >= tpr
        )
        assert metrics.fpr_at_tpr(scores, is_anomaly, tpr) == pytest.approx(expected)


def test_curve_rises_from_corner_to_corner():
    generator = np.random.default_rng(0)
    rates = metrics.roc_curve(generator.random(50), generator.random(50) < 0.5)
    for rate in rates:
        assert (rate[0], rate[-1]) == (0, 1)
        assert (np.diff(rate) >= 0).all()


@pytest.mark.parametrize("measure", [metrics.auroc, metrics.aupr, metrics.fpr_at_tpr])
@pytest.mark.parametrize(
    ("scores", "is_anomaly", "message"),
    [
        ([1, 2], [1, 1], "only one kind"),
        ([1, 2], [0, 0], "only one kind"),
        ([1, np.nan], [0, 1], "NaN"),
        ([1, 2, 3], [0, 1], "3 scores but 2"),
        ([], [], "only one kind"),
    ],
)
def test_senseless_input_is_refused(measure, scores, is_anomaly, message):
    with pytest.raises(ValueError, match=message):
        measure(np.array(scores, float), np.array(is_anomaly))


def test_the_interval_agrees_with_the_bootstrap():
    generator = np.random.default_rng(0)
    is_anomaly = np.arange(300) < 100
    scores = np.round(generator.normal(is_anomaly * 1.2, 1), 1)  # with ties
    low, high = metrics.auroc_interval(scores, is_anomaly)
    drawn = []
    for _ in range(2000):
        chosen = np.r_[generator.integers(100, size=100), 100 + generator.integers(200, size=200)]
        drawn.append(metrics.auroc(scores[chosen], is_anomaly[chosen]))
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.025, 0.975]), atol=0.01)


@pytest.mark.parametrize("area", [0.6, 0.9, 0.99])
@pytest.mark.parametrize(("anomalies", "normals"), [(20, 20), (20, 180), (200, 1800)])
def test_the_interval_covers_the_true_area(area, anomalies, normals):
    """By simulation with normal scores, also with a wider spread of the anomalies."""
    generator = np.random.default_rng(0)
    for spread in (1.0, 2.0):
        distance = norm.ppf(area) * np.sqrt(1 + spread**2)
        covered = []
        for _ in range(400):
            scores = generator.normal(size=anomalies + normals)
            scores[:anomalies] = scores[:anomalies] * spread + distance
            low, high = metrics.auroc_interval(scores, np.arange(len(scores)) < anomalies)
            covered.append(low <= area <= high)
        # At 0.95, 400 draws give less than 0.93 in one of 25 cases; the seed is fixed.
        assert np.mean(covered) >= 0.93


def test_the_interval_of_a_perfect_score_has_a_width():
    low, high = metrics.auroc_interval(np.arange(40), np.arange(40) >= 20)
    assert 0.8 < low < 0.95 and high == 1
    narrow, _ = metrics.auroc_interval(np.arange(400), np.arange(400) >= 200)
    assert low < narrow < 1
    low, high = metrics.auroc_interval(-np.arange(40), np.arange(40) >= 20)
    assert low == 0 and 0.05 < high < 0.2
    assert metrics.auroc_interval([0, 1], [False, True])[0] < 0.5


def test_balanced_accuracy_counts_each_class_the_same():
    labels = np.r_[np.zeros(90, int), np.ones(10, int)]
    predicted = np.zeros(100, int)
    assert metrics.balanced_accuracy(labels, predicted)[0] == 0.5
    predicted[90:95] = 1
    accuracy, low = metrics.balanced_accuracy(labels, predicted)
    assert accuracy == 0.75
    more = metrics.balanced_accuracy(np.tile(labels, 100), np.tile(predicted, 100))
    assert low < more[1] < more[0] == 0.75
    with pytest.raises(ValueError, match="No images"):
        metrics.balanced_accuracy(np.zeros(0, int), np.zeros(0, int))


@pytest.mark.parametrize("counts", [(10, 10), (90, 10), (40, 40, 40, 5)])
@pytest.mark.parametrize("right", [0.5, 0.9, 0.99])
def test_the_lower_end_of_the_balanced_accuracy_holds(counts, right):
    """In a simulation it lies above the true one in 2.5 % of cases, give or take."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    above = []
    for _ in range(600):
        predicted = np.where(generator.random(len(labels)) < right, labels, -1)
        above.append(metrics.balanced_accuracy(labels, predicted)[1] > right)
    assert np.mean(above) <= 0.045


def test_per_region_overlap_counts_small_regions_as_much_as_large_ones():
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 0:4, 0:5] = True  # a region of 20 pixels
    masks[0, 9, 9] = True  # and one of 1
    maps = np.zeros((2, 10, 10))
    maps[0, 0:4, 0:5] = 2.0  # The first is found without false pixels, the second never.
    assert metrics.per_region_overlap(masks * 1.0, masks) == pytest.approx(1.0)
    found = metrics.per_region_overlap(maps, masks)
    # From one half without false pixels it rises straight to 1 where all pixels are found.
    assert found == pytest.approx(0.5 + 0.5 * 0.3 / 2)
    assert metrics.auroc(maps, masks) == pytest.approx(1 - 0.5 / 21)


def test_per_region_overlap_against_a_scan_of_thresholds():
    from scipy.ndimage import label

    generator = np.random.default_rng(0)
    masks = generator.random((4, 12, 12)) > 0.8
    maps = np.round(generator.random((4, 12, 12)) + 0.5 * masks, 2)
    curve = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        overlaps = []
        for mask, of_image in zip(masks, found, strict=True):
            labelled, count = label(mask, structure=np.ones((3, 3)))
            overlaps += [of_image[labelled == region].mean() for region in range(1, count + 1)]
        curve.append((found[~masks].mean(), np.mean(overlaps)))
    false, overlap = np.array(curve).T
    points = np.linspace(0, 0.3, 20001)
    # Among equal rates of false pixels the last one counts.
    expected = np.mean(
        [
            overlap[false <= p + 1e-12][-1] if p == 0 else np.interp(p, false, overlap)
            for p in points
        ]
    )
    assert metrics.per_region_overlap(maps, masks) == pytest.approx(expected, abs=1e-3)


def test_per_region_overlap_needs_both_kinds_of_pixels():
    with pytest.raises(ValueError, match="only one kind"):
        metrics.per_region_overlap(np.zeros((1, 3, 3)), np.zeros((1, 3, 3), bool))
