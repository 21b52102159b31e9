import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import SGDOneClassSVM
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from sklearn.svm import OneClassSVM

from models import layers
from models.detectors.cnn_ocsvm import fit_machine
from tests.backends import array


@pytest.fixture
def features():
    return np.random.default_rng(0).gamma(2.0, 3.0, size=(300, 16)).astype("float32")


def layer_of(machine):
    layer = layers.RbfOneClass(len(machine["centre"]), machine.pop("gamma"))
    layer.build((None, 16))
    layer.set_machine(**machine)
    return layer


@pytest.mark.parametrize("exact", [True, False])
def test_one_class_layer_equals_scikit_learn(exact, features):
    labels = np.arange(300) % 3
    unit = normalize(features).astype("float64")
    machine = fit_machine(unit, labels, 0.1, 300 if exact else 299, 50, seed=3)
    gamma = machine["gamma"]
    if exact:
        theirs = OneClassSVM(gamma=gamma, nu=0.1).fit(unit)
        expected = theirs.decision_function(unit)
    else:
        nystroem = Nystroem(gamma=gamma, n_components=50, random_state=3)
        mapped = nystroem.fit_transform(unit)
        theirs = SGDOneClassSVM(nu=0.1, random_state=3, average=True).fit(mapped)
        expected = theirs.decision_function(mapped)
    found = array(layer_of(machine)(features))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_kernel_width_follows_the_classes():
    generator = np.random.default_rng(0)
    labels = np.arange(600) % 12

    def chosen(spread):
        angles = 2 * np.pi * labels / 12 + generator.normal(scale=spread, size=600)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        machine = fit_machine(circle, labels, 0.1, 5000, 500, seed=0)
        return machine["gamma"] * 2 * circle.var()

    # Twelve tight classes on a circle are told apart by a narrow kernel alone.
    assert chosen(0.03) >= 2


def test_nearest_neighbours_are_those_of_scikit_learn(features):
    queries = np.random.default_rng(1).gamma(2.0, 3.0, size=(20, 16)).astype("float32")
    layer = layers.NearestNeighbours(300, 7)
    layer.build((None, 16))
    layer.remember(features, np.arange(300) * 2)
    theirs = NearestNeighbors(n_neighbors=7).fit(normalize(features))
    expected = theirs.kneighbors(normalize(queries))[0][:, -1]
    found, nearest = layer(queries)
    np.testing.assert_allclose(found, -expected, atol=1e-5)
    first = theirs.kneighbors(normalize(queries))[1][:, 0]
    np.testing.assert_array_equal(nearest, first * 2)


def test_relative_distances_are_those_of_scikit_learn(features):
    labels = np.arange(300) % 4
    features = features + labels[:, None]
    queries = np.random.default_rng(1).gamma(2.0, 3.0, size=(20, 16)).astype("float32")
    layer = layers.RelativeMahalanobis(3)
    layer.build((None, 16))
    layer.fit(features, labels)

    means = np.stack([features[labels == label].mean(axis=0) for label in range(4)])
    within = EmpiricalCovariance(assume_centered=True).fit(features - means[labels])
    distances = [within.mahalanobis(queries - mean) for mean in means[:3]]  # The fourth is none.
    expected = np.min(distances, axis=0) - EmpiricalCovariance().fit(features).mahalanobis(queries)
    np.testing.assert_allclose(array(layer(queries)), expected, rtol=0.01, atol=0.1)


def test_relative_distances_ignore_what_varies_in_all_images():
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2
    features = generator.normal(size=(400, 8))
    features[:, 0] = 5 * labels + generator.normal(scale=0.1, size=400)
    layer = layers.RelativeMahalanobis(2)
    layer.build((None, 8))
    layer.fit(features, labels)
    between, far_along_noise = np.zeros((2, 8))
    between[0], far_along_noise[[0, 1]] = 2.5, (5, 4)
    usual = array(layer(features[:50].astype("float32")))
    between, noisy = array(layer(np.stack([between, far_along_noise]).astype("float32")))
    assert noisy < usual.max() < between


@pytest.mark.parametrize("count", [2, 5])
def test_relative_distances_of_fewer_images_than_features_are_finite(count):
    features = np.random.default_rng(0).random((count, 16)).astype("float32")
    layer = layers.RelativeMahalanobis(2)
    layer.build((None, 16))
    layer.fit(features, np.arange(count) % 2)
    found = array(layer(np.concatenate([features, np.zeros((1, 16)), np.full((1, 16), 1e6)])))
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("shifts", "count"), [(False, 8), (True, 72)])
def test_geometric_transformations_all_differ_and_begin_with_the_identity(shifts, count):
    layer = layers.GeometricTransformations(shifts)
    images = np.random.default_rng(0).random((2, 12, 12, 3)).astype("float32")
    transformed = array(layer(images)).reshape(count, 2, 12, 12, 3)
    np.testing.assert_array_equal(transformed[0], images)
    np.testing.assert_array_equal(transformed[1], np.rot90(images, axes=(1, 2)))
    np.testing.assert_array_equal(transformed[3], np.rot90(images, 3, axes=(1, 2)))
    np.testing.assert_array_equal(transformed[count // 2], images[:, :, ::-1])
    assert len({image.tobytes() for image in transformed[:, 0]}) == count
    for index in range(count):  # arrays, in training, as tensors, in scoring
        np.testing.assert_array_equal(layer.transform(images, index), transformed[index])


def test_moves_repeat_the_outermost_pixels():
    layer = layers.GeometricTransformations(shifts=True)
    row = np.arange(1, 9, dtype="float32")
    images = np.tile(row, (8, 1))[None, :, :, None]
    expected = {1: [2, 1, 1, 2, 3, 4, 5, 6], -1: [3, 4, 5, 6, 7, 8, 8, 7]}
    transformed = array(layer(images))[..., 0]
    for move, moved in expected.items():
        right = transformed[layer.transformations.index((False, 0, move, 0))]
        np.testing.assert_array_equal(right, np.tile(moved, (8, 1)))
        down = array(layer(images.swapaxes(1, 2)))[..., 0]
        down = down[layer.transformations.index((False, move, 0, 0))]
        np.testing.assert_array_equal(down, np.tile(moved, (8, 1)).T)


def test_log_probability_is_that_of_what_was_done():
    layer = layers.GeometricTransformations()
    logits = np.random.default_rng(0).normal(size=(8 * 5, 3 * 8)).astype("float32")
    found = layer.mean_log_probability(logits, 3)
    log_probability = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.zeros((5, 3))
    for done in range(8):
        for image in range(5):
            for label in range(3):
                expected[image, label] += log_probability[done * 5 + image, label * 8 + done] / 8
    np.testing.assert_allclose(found, expected, rtol=1e-4)
