import numpy as np
import pytest

from models.images import bordered_size, resize_images
from tests.backends import array, tensorflow_only


def test_an_image_of_another_shape_keeps_its_proportions():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (20, 40, 1), dtype="uint8")
    found = array(resize_images(image, (16, 16)))
    inner = array(resize_images(image, (8, 16)))
    # Bilinear resizing mixes a row with its neighbours at the edge of the border.
    np.testing.assert_array_equal(found[5:11], inner[1:7])
    for row in (*range(3), *range(13, 16)):
        np.testing.assert_array_equal(found[row], found[0 if row < 8 else 15])
    assert np.abs(found[0] - inner[0]).max() < 100


@tensorflow_only
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 50), (50, 7), (16, 24)])
def test_unknown_sizes_in_a_graph_give_the_same(size):
    import tensorflow as tf

    image = np.random.default_rng(1).integers(0, 256, (2, *size, 3), dtype="uint8")
    graph = tf.function(
        lambda images: resize_images(images, (16, 24)),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    np.testing.assert_array_equal(graph(image), resize_images(image, (16, 24)))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((20, 40), (40, 40)), ((40, 20), (40, 40)), ((30, 30), (30, 30)), ((5, 100), (20, 100))],
)
def test_bordered_sizes(size, expected):
    assert bordered_size(size, (16, 16)) == expected
