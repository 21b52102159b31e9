import keras
import numpy as np
import pytest
import tensorflow as tf

from models import layers


def route(votes, activations, iterations=3):
    above = votes.shape[1]
    return layers.em_routing(
        tf.constant(votes, "float32"),
        tf.constant(activations, "float32"),
        tf.zeros(above),
        tf.zeros(above),
        iterations,
    )


def test_the_capsule_whose_votes_agree_is_the_most_active_and_takes_their_pose():
    generator = np.random.default_rng(0)
    votes = generator.normal(size=(1, 3, 40, 16))
    agreed = generator.normal(size=16)
    votes[0, 1] = agreed + 0.05 * generator.normal(size=(40, 16))
    poses, activations = route(votes, np.ones((1, 40)))
    assert np.argmax(activations[0]) == 1
    np.testing.assert_allclose(poses[0, 1], agreed, atol=0.05)


def test_inactive_capsules_have_no_say():
    generator = np.random.default_rng(0)
    votes = generator.normal(size=(1, 2, 40, 16))
    active = np.arange(40) < 10
    poses, activations = route(votes, active[None].astype(float))
    alone, alone_activations = route(votes[:, :, :10], np.full((1, 10), 1.0))
    np.testing.assert_allclose(
        route(votes, active[None] * 1.0, 1)[0], votes[:, :, :10].mean(2), 1e-4
    )
    assert poses.shape == alone.shape == (1, 2, 16)
    assert not np.allclose(activations, alone_activations)  # less data: less sure


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-20, 1e4, 1e8])
@pytest.mark.parametrize("active", [0.0, 1.0])
def test_values_and_gradients_are_finite(scale, active):
    votes = tf.Variable(
        np.random.default_rng(0).normal(size=(2, 3, 9, 16)) * scale, dtype="float32"
    )
    activations = tf.Variable(tf.fill((2, 9), active))
    with tf.GradientTape() as tape:
        poses, above = layers.em_routing(votes, activations, tf.ones(3), tf.ones(3), 3)
        loss = tf.reduce_sum(above) + tf.reduce_sum(tf.tanh(poses))
    gradients = tape.gradient(loss, [votes, activations])
    assert all(np.isfinite(value).all() for value in (poses, above, *gradients))
    assert (np.asarray(above) >= 0).all() and (np.asarray(above) <= 1).all()


def test_one_position_is_enough():
    generator = np.random.default_rng(0)
    poses = generator.normal(size=(2, 1, 1, 4, 16)).astype("float32")
    activations = generator.random((2, 1, 1, 4)).astype("float32")
    classes = layers.ClassEmCapsules(5)
    above, active = classes(poses, activations)
    assert above.shape == (2, 5, 16) and active.shape == (2, 5)


def test_votes_are_poses_times_matrices():
    layer = layers.ConvolutionalEmCapsules(2, kernel_size=1, routing_iterations=1)
    poses = np.random.default_rng(0).normal(size=(1, 1, 1, 3, 16)).astype("float32")
    above, _ = layer(poses, np.ones((1, 1, 1, 3), "float32"))
    kernel = np.asarray(layer.kernel).reshape(3, 4, 2, 4)
    votes = np.einsum("ipq,iqjr->ijpr", poses.reshape(3, 4, 4), kernel).reshape(3, 2, 16)
    np.testing.assert_allclose(above[0, 0, 0], votes.mean(0), rtol=1e-3, atol=1e-4)


def test_squares_are_those_of_a_convolution():
    layer = layers.ConvolutionalEmCapsules(2, kernel_size=3, strides=2)
    positions = np.arange(7 * 6, dtype="float32").reshape(1, 7, 6, 1, 1)
    squares = np.asarray(layer._squares(positions, 3, 2))
    assert squares.shape == (1, 3, 2, 9, 1, 1)
    expected = positions[0, 4:7, 2:5, 0, 0].ravel()
    np.testing.assert_array_equal(squares[0, 2, 1, :, 0, 0], expected)


@pytest.mark.parametrize(
    "layer",
    [
        layers.ConvolutionalEmCapsules(3, kernel_size=3, strides=2, routing_iterations=2),
        layers.ClassEmCapsules(3, routing_iterations=2),
    ],
)
def test_config_round_trip_and_output_shape(layer):
    generator = np.random.default_rng(0)
    shapes = (2, 7, 6, 4, 16), (2, 7, 6, 4)
    inputs = [generator.random(shape).astype("float32") for shape in shapes]
    outputs = layer(*inputs)
    assert tuple(map(tuple, layer.compute_output_shape(*shapes))) == tuple(
        tuple(output.shape) for output in outputs
    )
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy(*inputs)
    copy.set_weights(layer.get_weights())
    for found, expected in zip(copy(*inputs), outputs, strict=True):
        np.testing.assert_array_equal(found, expected)
