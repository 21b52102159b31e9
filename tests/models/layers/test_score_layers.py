import numpy as np
import pytest
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import SGDOneClassSVM
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from sklearn.svm import OneClassSVM

from models import layers
from models.detectors.cnn_ocsvm import fit_machine


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
    machine = fit_machine(features, 0.1, 300 if exact else 299, 50, seed=3)
    gamma = machine["gamma"]
    standardised = (features - features.mean(0)) / features.std(0)
    if exact:
        theirs = OneClassSVM(gamma=gamma, nu=0.1).fit(standardised)
        expected = theirs.decision_function(standardised)
    else:
        nystroem = Nystroem(gamma=gamma, n_components=50, random_state=3)
        mapped = nystroem.fit_transform(standardised.astype("float64"))
        theirs = SGDOneClassSVM(nu=0.1, random_state=3, average=True).fit(mapped)
        expected = theirs.decision_function(mapped)
    found = np.asarray(layer_of(machine)(features))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_kernel_is_narrow_where_images_are_dense_and_wide_where_they_are_sparse():
    generator = np.random.default_rng(0)
    dense, sparse = (
        generator.normal(size=size).astype("float32") for size in ((1000, 2), (60, 64))
    )
    factors = [
        fit_machine(features, 0.1, 5000, 500, seed=0)["gamma"] * features.shape[1]
        for features in (dense, sparse)
    ]
    assert factors[0] > 1 > factors[1]
    assert set(factors) <= {4, 2, 1, 0.5, 0.25}


def test_nearest_neighbours_are_those_of_scikit_learn(features):
    queries = np.random.default_rng(1).gamma(2.0, 3.0, size=(20, 16)).astype("float32")
    layer = layers.NearestNeighbours(300, 7)
    layer.build((None, 16))
    layer.remember(features)
    theirs = NearestNeighbors(n_neighbors=7).fit(normalize(features))
    expected = theirs.kneighbors(normalize(queries))[0][:, -1]
    np.testing.assert_allclose(layer(queries), -expected, atol=1e-5)
