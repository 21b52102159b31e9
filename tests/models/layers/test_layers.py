import keras
import numpy as np
import pytest
from keras import ops

from models import layers
from models.images import resize_images
from tests.backends import array, gradients


def numpy_squash(s):
    squared = (s**2).sum(-1, keepdims=True)
    return squared / (1 + squared) * s / np.sqrt(squared)


def numpy_routing(u_hat, iterations):
    """Sabour et al., procedure 1, loop by loop. u_hat: B, I, J, E."""
    batch, inputs, outputs, dim = u_hat.shape
    v = np.zeros((batch, outputs, dim))
    for n in range(batch):
        b = np.zeros((inputs, outputs))
        for _ in range(iterations):
            for j in range(outputs):
                s = np.zeros(dim)
                for i in range(inputs):
                    c = np.exp(b[i]) / np.exp(b[i]).sum()
                    s += c[j] * u_hat[n, i, j]
                v[n, j] = numpy_squash(s)
            for i in range(inputs):
                for j in range(outputs):
                    b[i, j] += v[n, j] @ u_hat[n, i, j]
    return v


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_squash_is_the_equation(generator):
    vectors = generator.normal(size=(5, 7, 8)).astype("float32") * 3
    np.testing.assert_allclose(layers.squash(vectors), numpy_squash(vectors), rtol=1e-5)


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_routing_is_the_procedure(generator, iterations):
    capsules = generator.normal(size=(3, 10, 8)).astype("float32")
    matrices = generator.normal(size=(10, 8, 4, 6)).astype("float32") / 3
    u_hat = np.einsum("bid,idje->bije", capsules, matrices)  # one matrix a pair of capsules
    routed = layers.dynamic_routing(capsules, matrices, iterations)
    np.testing.assert_allclose(routed, numpy_routing(u_hat, iterations), rtol=2e-4, atol=1e-6)


def numpy_exponential_squash(s):
    length = np.linalg.norm(s, axis=-1, keepdims=True)
    return (1 - np.exp(-length)) * s / length


def test_exponential_squash_is_the_equation(generator):
    vectors = generator.normal(size=(5, 7, 8)).astype("float32") * 3
    np.testing.assert_allclose(
        layers.exponential_squash(vectors), numpy_exponential_squash(vectors), rtol=1e-5
    )
    np.testing.assert_array_equal(layers.exponential_squash(np.zeros((2, 8), "float32")), 0)


def test_attention_capsules_are_the_equations(generator):
    capsules = generator.normal(size=(3, 5, 8)).astype("float32")
    layer = layers.AttentionCapsules(4, 6)
    layer.build(capsules.shape)
    kernel, prior = generator.normal(size=(4, 5, 8, 6)) / 2, generator.normal(size=(4, 5))
    layer.set_weights([kernel, prior])
    expected = np.zeros((3, 4, 6))
    for image in range(3):
        # Predictions of one output capsule, and how much each agrees with all of them
        predictions = np.stack(
            [[capsules[image, i] @ kernel[j, i] for i in range(5)] for j in range(4)]
        )
        attention = np.stack([(u @ u.T).sum(axis=1) for u in predictions]) / np.sqrt(6)
        coupling = np.exp(attention) / np.exp(attention).sum(axis=0) + prior
        for j in range(4):
            s = sum(coupling[j, i] * predictions[j, i] for i in range(5))
            expected[image, j] = numpy_exponential_squash(s)
    np.testing.assert_allclose(layer(capsules), expected, rtol=1e-4, atol=1e-5)


def test_depthwise_capsules_are_a_depthwise_convolution_over_the_whole_map(generator):
    features = generator.normal(size=(3, 5, 4, 16)).astype("float32")
    layer = layers.DepthwiseCapsules(8)
    layer.build(features.shape)
    kernel, bias = generator.normal(size=(5, 4, 1, 16)) / 4, generator.normal(size=16)
    layer.set_weights([kernel, bias])
    convolved = ops.depthwise_conv(features, kernel.transpose(0, 1, 3, 2).astype("float32"))
    expected = numpy_exponential_squash((array(convolved) + bias).reshape(3, 2, 8))
    np.testing.assert_allclose(layer(features), expected, rtol=1e-4, atol=1e-5)


def test_channels_that_make_no_capsules_are_refused():
    with pytest.raises(ValueError, match="12 channels"):
        layers.DepthwiseCapsules(8).build((None, 3, 3, 12))


def test_routing_stays_finite_when_capsules_agree_strongly():
    capsules, matrices = np.full((2, 10, 8), 9, "float32"), np.full((10, 8, 4, 6), 9, "float32")
    matrices[:, :, 1] = 90
    lengths = layers.vector_length(layers.dynamic_routing(capsules, matrices, 3))
    np.testing.assert_allclose(lengths, [[0, 1, 0, 0]] * 2, atol=1e-3)  # the winner takes all


def test_routing_iterations_must_be_positive():
    with pytest.raises(ValueError, match="at least 1"):
        layers.ClassCapsules(3, routing_iterations=0)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-20, 1e4, 1e15])
def test_values_and_gradients_are_finite(value):
    layer = layers.ClassCapsules(3)
    inputs = np.full((2, 6, 4), value, "float32")
    assert np.isfinite(array(layer(layers.squash(ops.convert_to_tensor(inputs))))).all()

    def loss(inputs):
        return ops.sum(layers.vector_length(layer(layers.squash(inputs))) ** 2)

    for gradient in gradients(loss, [inputs], layer.trainable_variables):
        assert np.isfinite(gradient).all()


def test_squashed_lengths_stay_below_one_and_keep_the_direction(generator):
    vectors = generator.normal(size=(100, 8)).astype("float32") * np.logspace(-6, 6, 100)[:, None]
    squashed = array(layers.squash(vectors.astype("float32")))
    lengths = np.linalg.norm(squashed, axis=-1)
    assert (lengths <= 1 + 1e-6).all()
    longer = np.linalg.norm(vectors, axis=-1).argsort()
    assert (np.diff(lengths[longer]) >= -1e-6).all()
    cosine = (squashed * vectors).sum(-1) / lengths / np.linalg.norm(vectors, axis=-1)
    np.testing.assert_allclose(cosine, 1, rtol=1e-4)


def test_primary_capsules_group_channels_position_by_position(generator):
    layer = layers.PrimaryCapsules(capsule_types=3, capsule_dim=4, kernel_size=3, strides=2)
    features = generator.normal(size=(2, 8, 6, 5)).astype("float32")
    capsules = layer(features)
    assert capsules.shape == (2, 3 * 2 * 3, 4)
    channels = array(layer.convolution(features))  # B, 3, 2, 12
    expected = numpy_squash(channels[1, 2, 1, 4:8])
    np.testing.assert_allclose(array(capsules)[1, (2 * 2 + 1) * 3 + 1], expected, rtol=1e-4)


def test_mask_keeps_the_capsule_of_the_largest_weight(generator):
    capsules = generator.normal(size=(2, 3, 4)).astype("float32")
    masked = array(layers.CapsuleMask()(capsules, np.array([[0, 1, 0], [0.2, 0.1, 0.9]])))
    expected = np.zeros((2, 3, 4), "float32")
    expected[0, 1], expected[1, 2] = capsules[0, 1], capsules[1, 2]
    np.testing.assert_array_equal(masked, expected.reshape(2, 12))


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (layers.PrimaryCapsules(3, 4, kernel_size=3, strides=1), [(2, 8, 6, 5)]),
        (layers.ClassCapsules(3, capsule_dim=5, routing_iterations=2), [(2, 7, 4)]),
        (layers.CapsuleLength(), [(2, 3, 4)]),
        (layers.CapsuleMask(), [(2, 3, 4), (2, 3)]),
        (layers.ConformalCalibration(9), [(5,)]),
        (layers.ImagePreprocessing((8, 10), (6, 4)), [(2, 20, 16, 3)]),
    ],
)
def test_config_round_trip_and_output_shape(layer, shapes, generator):
    inputs = [generator.random(shape).astype("float32") for shape in shapes]
    output = layer(*inputs)
    assert tuple(layer.compute_output_shape(*shapes)) == tuple(output.shape)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
    copy(*inputs)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(copy(*inputs)), array(output))


def test_preprocessing_crops_the_centre_and_scales():
    images = np.arange(2 * 6 * 6, dtype="uint8").reshape(2, 6, 6, 1)
    output = layers.ImagePreprocessing((6, 6), (2, 4))(images)
    np.testing.assert_allclose(output, images[:, 2:4, 1:5] / 255, rtol=1e-6)


def test_resizing_an_array_before_equals_resizing_in_the_model():
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 23, 3), dtype="uint8")
    before = array(resize_images(images, (8, 8))).astype("uint8")
    preprocessing = layers.ImagePreprocessing((8, 8))
    np.testing.assert_array_equal(preprocessing(before), preprocessing(images))
