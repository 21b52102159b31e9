import os

import keras
import numpy as np
import pytest

from models import backbones
from models.backbones import MAPS, backbone
from models.errors import UserError
from models.layers import ImageNetScaling
from tests.backends import array


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", backbones.names())
def test_feature_maps_of_three_sizes(name, channels):
    network = backbone(name, "none", (64, 96, channels))
    assert not network.trainable_variables
    found = network(np.zeros((2, 64, 96, channels), "float32"))
    assert {key: tuple(value.shape[1:3]) for key, value in found.items()} == {
        "stride8": (8, 12),
        "stride16": (4, 6),
        "stride32": (2, 3),
    }
    assert tuple(backbone(name, "none", (64, 64, 3), MAPS[:1]).output) == ("stride8",)


def test_scaling_is_that_of_keras_applications():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype("float32")
    for mode, module in (("signed", "mobilenet"), ("caffe", "resnet")):
        expected = getattr(keras.applications, module).preprocess_input(images.copy())
        found = ImageNetScaling(mode)(images / 255)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-4)
    found = keras.ops.convert_to_numpy(ImageNetScaling("bytes")(images[..., :1] / 255))
    np.testing.assert_allclose(found, images[..., :1].repeat(3, -1), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message", "setting"),
    [
        (("mobilnet", "none", (64, 64, 3)), "Unknown backbone 'mobilnet'", "backbone"),
        (("mobilenet", "none", (64, 31, 3)), "64x31 pixels are too small.*32x32", "image_size"),
        (("mobilenet", "nowhere.h5", (64, 64, 3)), "nowhere.h5 does not exist", "weights"),
    ],
)
def test_bad_input(arguments, message, setting):
    with pytest.raises(UserError, match=message) as raised:
        backbone(*arguments)
    assert raised.value.settings == (setting,)


def test_weights_of_a_file_and_of_another_network(tmp_path):
    source = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(64, 64, 3))
    path = tmp_path / "some.weights.h5"
    source.save_weights(path)
    images = np.random.default_rng(0).random((1, 64, 64, 3)).astype("float32")
    found = backbone("mobilenet", str(path), (64, 64, 3))(images)["stride32"]
    expected = source(images * 2 - 1)
    np.testing.assert_allclose(array(found), array(expected), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="some.weights.h5 does not hold weights of resnet50"):
        backbone("resnet50", str(path), (64, 64, 3))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged, or it is of another network"):
        backbone("mobilenet", str(path), (64, 64, 3))


def test_without_a_network_it_says_which_file_to_put_where(monkeypatch, tmp_path):
    def fails(*arguments, **settings):
        raise OSError("no network")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.applications, "MobileNet", fails)
    with pytest.raises(
        UserError, match=r"cannot be fetched \(no network\). Put the file "
    ) as raised:
        backbone("mobilenet", "imagenet", (64, 64, 3))
    assert f"mobilenet_1_0_224_tf_no_top.h5 of keras.applications into {tmp_path}/models" in str(
        raised.value
    )


@pytest.mark.skipif("CAPSAD_TEST_WEIGHTS" not in os.environ, reason="no file of weights is named")
def test_real_weights_see_more_than_random_ones():
    path = os.environ["CAPSAD_TEST_WEIGHTS"]
    found = backbone("mobilenet", path, (224, 224, 3))(np.zeros((1, 224, 224, 3), "float32"))
    assert float(array(found["stride32"]).max()) > 0
