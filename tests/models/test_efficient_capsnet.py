import numpy as np
import pytest

from models.efficient_capsnet import EfficientCapsNet
from models.errors import UserError
from tests.backends import array


def test_parameter_count_is_that_of_the_paper():
    trained = EfficientCapsNet((28, 28, 1), 10).encoder.trainable_variables
    assert sum(np.prod(variable.shape) for variable in trained) == 161_824


def convolve(images, kernel, bias, strides):
    size = len(kernel)
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    return np.einsum("bhwcij,ijcf->bhwf", windows[:, ::strides, ::strides], kernel) + bias


def squash(s):
    length = np.linalg.norm(s, axis=-1, keepdims=True)
    return (1 - np.exp(-length)) * s / length


def test_capsules_are_those_that_numpy_computes():
    generator = np.random.default_rng(0)
    images = generator.random((2, 17, 14, 3)).astype("float32")
    encoder = EfficientCapsNet((17, 14, 3), 4, class_dim=6, decoder_units=(8,)).encoder
    weights = [generator.normal(size=w.shape) * 0.1 for w in encoder.get_weights()]
    # Variances are the fourth of each normalisation.
    variances = [index for index, w in enumerate(encoder.weights) if "variance" in w.path]
    for index in variances:
        weights[index] = weights[index] ** 2 + 0.5
    encoder.set_weights(weights)

    left = iter(weights)
    features = images
    for strides in (1, 1, 1, 2):
        features = np.maximum(convolve(features, next(left), next(left), strides), 0)
        scale, offset, mean, variance = (next(left) for _ in range(4))
        features = scale * (features - mean) / np.sqrt(variance + 1e-3) + offset
    kernel, bias = next(left), next(left)
    primary = squash(((features * kernel[:, :, 0]).sum((1, 2)) + bias).reshape(2, 16, 8))
    matrices, prior = next(left), next(left)
    predictions = np.einsum("bid,jide->bjie", primary, matrices)
    attention = np.einsum("bjie,bjke->bji", predictions, predictions) / np.sqrt(6)
    coupling = np.exp(attention) / np.exp(attention).sum(axis=1, keepdims=True) + prior
    expected = squash(np.einsum("bji,bjie->bje", coupling, predictions))
    np.testing.assert_allclose(array(encoder(images)), expected, rtol=2e-4, atol=1e-6)


def test_too_small_images_are_refused():
    EfficientCapsNet((11, 11, 1), 3)
    with pytest.raises(UserError, match="at least 11x11"):
        EfficientCapsNet((10, 28, 1), 3)
