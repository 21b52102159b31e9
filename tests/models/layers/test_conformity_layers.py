import keras
import numpy as np
import pytest

from models.layers import ClassNeighbours, ClassStandardisation


def distances(images, predicted, bank, labels, per_class, neighbours):
    """What `ClassNeighbours` documents, an image at a time."""
    found = []
    for image, label in zip(images.reshape(len(images), -1), predicted, strict=True):
        own = bank[labels == label][:per_class].reshape(-1, image.size)
        cosine = own @ image / np.linalg.norm(own, axis=1) / np.linalg.norm(image)
        found.append(1 - np.sort(cosine)[-neighbours:].mean())
    return found


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    # Class 2 has fewer images than neighbours.
    labels = np.array([0] * 20 + [1] * 9 + [2] * 3)
    return {
        "bank": generator.random((32, 4, 5, 3)).astype("float32"),
        "labels": labels,
        "images": generator.random((6, 4, 5, 3)).astype("float32"),
        "weights": generator.random((6, 3)).astype("float32"),
    }


@pytest.mark.parametrize("per_class", [20, 8])
def test_distances_are_those_to_the_predicted_class(data, per_class):
    layer = ClassNeighbours(3, per_class, neighbours=5)
    layer.build(data["images"].shape)
    layer.remember(data["bank"], data["labels"])
    predicted = data["weights"].argmax(axis=1)
    assert set(predicted) == {0, 1, 2}
    expected = distances(
        data["images"], predicted, data["bank"], data["labels"], per_class, neighbours=5
    )
    np.testing.assert_allclose(layer(data["images"], data["weights"]), expected, atol=1e-6)


def test_a_black_image_is_as_far_as_orthogonal_ones(data):
    layer = ClassNeighbours(3, 20)
    layer.build(data["images"].shape)
    layer.remember(data["bank"], data["labels"])
    distance = layer(np.zeros((2, 4, 5, 3), "float32"), data["weights"][:2])
    np.testing.assert_allclose(distance, 1.0)


def test_values_are_standardised_within_the_predicted_class():
    generator = np.random.default_rng(0)
    predicted = np.array([0] * 200 + [1] * 300 + [2] * 4)
    values = generator.normal(np.array([0.0, 5.0, 9.0])[predicted], [*[1.0] * 200, *[0.1] * 304])
    layer = ClassStandardisation(3)
    layer.build((None,))
    layer.adapt(values, predicted)
    found = np.asarray(layer(values.astype("float32"), np.eye(3, dtype="float32")[predicted]))
    for label in (0, 1):
        own = found[predicted == label]
        np.testing.assert_allclose(np.quantile(own, [0.5, 0.9]), [0, 1], atol=1e-3)
    # Four images tell too little: measured by all.
    centre, upper = np.quantile(values, [0.5, 0.9])
    np.testing.assert_allclose(found[-4:], (values[-4:] - centre) / (upper - centre), rtol=1e-4)


def test_equal_values_do_not_divide_by_zero():
    layer = ClassStandardisation(2)
    layer.build((None,))
    layer.adapt(np.full(50, 0.3), np.arange(50) % 2)
    assert np.isfinite(layer(np.array([0.3, 0.9], "float32"), np.eye(2, dtype="float32"))).all()


@pytest.mark.parametrize("layer", [ClassNeighbours(3, 20, 4), ClassStandardisation(3)])
def test_config_round_trip(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
