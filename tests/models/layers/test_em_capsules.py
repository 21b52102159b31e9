import keras
import numpy as np
import pytest
from keras import ops

from models import layers
from tests.backends import array, gradients


def route(votes, activations, iterations=3):
    above = votes.shape[1]
    return layers.em_routing(
        ops.convert_to_tensor(votes, "float32"),
        ops.convert_to_tensor(activations, "float32"),
        ops.zeros(above),
        ops.zeros(above),
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
    votes = np.random.default_rng(0).normal(size=(2, 3, 9, 16)).astype("float32") * scale
    activations = np.full((2, 9), active, "float32")

    def loss(votes, activations):
        poses, above = layers.em_routing(votes, activations, ops.ones(3), ops.ones(3), 3)
        return ops.sum(above) + ops.sum(ops.tanh(poses))

    poses, above = map(array, route(votes, activations))
    assert all(
        np.isfinite(value).all() for value in (poses, above, *gradients(loss, [votes, activations]))
    )
    assert (above >= 0).all() and (above <= 1).all()


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
    kernel = array(layer.kernel).reshape(3, 4, 2, 4)
    votes = np.einsum("ipq,iqjr->ijpr", poses.reshape(3, 4, 4), kernel).reshape(3, 2, 16)
    np.testing.assert_allclose(array(above)[0, 0, 0], votes.mean(0), rtol=1e-3, atol=1e-4)


def test_squares_are_those_of_a_convolution():
    layer = layers.ConvolutionalEmCapsules(2, kernel_size=3, strides=2)
    positions = np.arange(7 * 6, dtype="float32").reshape(1, 7, 6, 1, 1)
    squares = array(layer._squares(ops.convert_to_tensor(positions), 3, 2))
    assert squares.shape == (1, 3, 2, 9, 1, 1)
    expected = positions[0, 4:7, 2:5, 0, 0].ravel()
    np.testing.assert_array_equal(squares[0, 2, 1, :, 0, 0], expected)


def numpy_convolutional_routing(votes, activations, betas, strides, iterations):
    """Hinton et al., procedure 1, loop by loop, for one image.

    Args:
        votes: votes[h][w] is a dict of the votes of a child, (J, 16), by the position of its parent
            and the number of its type.
    """
    parents = sorted({parent for row in votes for child in row for parent, _ in child})
    above = len(betas[0])

    def seen_by(child):
        h, w, kind = child
        return [parent for parent in parents if (parent, kind) in votes[h][w]]

    children = [child for child in np.ndindex(*activations.shape) if seen_by(child)]
    share = {
        (child, parent): np.full(above, 1 / (above * len(seen_by(child))))
        for child in children
        for parent in seen_by(child)
    }
    equal = {
        parent: sum(share[child, parent][0] for child in children if parent in seen_by(child))
        for parent in parents
    }
    for iteration in range(iterations):
        means, logits, density = {}, {}, {}
        for parent in parents:
            own = [child for child in children if parent in seen_by(child)]
            for j in range(above):
                weights = np.array([share[c, parent][j] * activations[c] for c in own])
                voted = np.array([votes[c[0]][c[1]][parent, c[2]][j] for c in own])
                mean = weights @ voted / weights.sum()
                variance = weights @ (voted - mean) ** 2 / weights.sum() + 1e-4
                cost = (betas[0][j] + np.log(variance).mean() / 2) * weights.sum() / equal[parent]
                means[parent, j] = mean
                logits[parent, j] = 8 * (1 - 0.95 ** (iteration + 1)) * (betas[1][j] - cost)
                for child, vote in zip(own, voted, strict=True):
                    exponent = ((vote - mean) ** 2 / variance).sum()
                    norm = np.sqrt(np.prod(2 * np.pi * variance))
                    activation = 1 / (1 + np.exp(-logits[parent, j]))
                    density[child, parent, j] = activation * np.exp(-exponent / 2) / norm
        for child in children:
            of_all = sum(density[child, p, j] for p in seen_by(child) for j in range(above))
            for parent in seen_by(child):
                for j in range(above):
                    share[child, parent][j] = density[child, parent, j] / of_all
    return means, logits


@pytest.mark.parametrize(("size", "strides"), [(3, 1), (3, 2), (2, 3)])
def test_parents_at_all_positions_compete_for_a_child(size, strides):
    """Against the published procedure, in which a child is divided among all its parents."""
    generator = np.random.default_rng(0)
    height, width, types, above = 6, 5, 2, 3
    poses = generator.normal(size=(2, height, width, types, 16)).astype("float32")
    activations = generator.uniform(0.2, 1, (2, height, width, types)).astype("float32")
    layer = layers.ConvolutionalEmCapsules(above, size, strides)
    layer.build(poses.shape)
    layer.set_weights([generator.normal(size=w.shape, scale=0.3) for w in layer.weights])
    found_poses, found_activations = map(array, layer(poses, activations))
    assert found_poses.shape == (2, *layer.compute_output_shape(poses.shape)[0][1:])

    kernel = array(layer.kernel).reshape(size, size, types, 4, above, 4)
    betas = array(layer.beta_use), array(layer.beta_activate)
    rows, columns = found_poses.shape[1:3]
    for image in range(2):
        votes = [[{} for _ in range(width)] for _ in range(height)]
        for r, c, i, j, kind in np.ndindex(rows, columns, size, size, types):
            h, w = r * strides + i, c * strides + j
            pose = poses[image, h, w, kind].reshape(4, 4).astype("float64")
            voted = np.einsum("pq,qar->apr", pose, kernel[i, j, kind]).reshape(above, 16)
            votes[h][w][(r, c), kind] = voted
        means, logits = numpy_convolutional_routing(votes, activations[image], betas, strides, 3)
        for (r, c), j in means:
            np.testing.assert_allclose(
                found_poses[image, r, c, j], means[(r, c), j], rtol=1e-3, atol=1e-3
            )
            expected = 1 / (1 + np.exp(-logits[(r, c), j]))
            np.testing.assert_allclose(found_activations[image, r, c, j], expected, atol=1e-3)


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
        np.testing.assert_array_equal(array(found), array(expected))
