import numpy as np

from models.coreset import coreset


def farthest(points, chosen):
    return np.sqrt(np.square(points[:, None] - points[chosen]).sum(-1)).min(1).max()


def test_each_point_is_the_farthest_from_all_before():
    points = np.random.default_rng(0).normal(size=(300, 5)).astype("float32")
    chosen = coreset(points, 40, np.random.default_rng(1))
    assert len(set(chosen.tolist())) == 40
    for count in range(1, 40):
        distances = np.square(points[:, None] - points[chosen[:count]]).sum(-1).min(1)
        assert distances[chosen[count]] >= distances.max() * (1 - 1e-4)


def test_it_covers_better_than_chance():
    generator = np.random.default_rng(0)
    points = np.r_[generator.normal(size=(2000, 3)), generator.normal(8, 0.1, (20, 3))]
    drawn = generator.permutation(len(points))[:30]
    assert farthest(points, coreset(points, 30, generator)) < 0.7 * farthest(points, drawn)


def test_no_more_points_than_there_are_and_equal_ones_are_fine():
    points = np.zeros((5, 2), "float32")
    assert sorted(coreset(points, 9, np.random.default_rng(0))) == [0, 1, 2, 3, 4]
