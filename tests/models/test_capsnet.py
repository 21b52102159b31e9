import json

import keras
import numpy as np
import pytest

from models.capsnet import CapsNet
from models.errors import UserError
from models.losses import MarginLoss, SumOfSquares
from tests.backends import INSTALLED, array, gradients


@pytest.mark.parametrize("classes", [9, 10])
def test_parameter_count_of_the_mnist_network(classes):
    conv = 9 * 9 * 1 * 256 + 256
    primary = 9 * 9 * 256 * (32 * 8) + 32 * 8
    matrices = (6 * 6 * 32) * classes * 8 * 16
    widths = [classes * 16, 512, 1024, 28 * 28]
    decoder = sum(a * b + b for a, b in zip(widths, widths[1:], strict=False))
    assert CapsNet((28, 28, 1), classes).count_params() == conv + primary + matrices + decoder


@pytest.mark.parametrize(("shape", "classes"), [((12, 12, 1), 2), ((14, 11, 3), 5)])
def test_any_shape_and_number_of_classes(shape, classes, tiny):
    outputs = CapsNet(shape, classes, **tiny)(np.random.random((3, *shape)).astype("float32"))
    assert outputs["capsules"].shape == (3, classes, 6)
    assert outputs["lengths"].shape == (3, classes)
    assert outputs["reconstruction"].shape == (3, *shape)
    np.testing.assert_allclose(
        array(outputs["lengths"]), np.linalg.norm(array(outputs["capsules"]), axis=-1), rtol=1e-4
    )


def test_too_small_images_are_refused():
    with pytest.raises(UserError, match="at least 17x17"):
        CapsNet((16, 28, 1), 9)


def test_too_large_images_are_refused():
    with pytest.raises(UserError, match="346112 primary capsules.*primary_strides"):
        CapsNet((224, 224, 3), 9)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 1), (32, 32, 3), (48, 48, 1), (64, 64, 3)])
def test_the_default_network_takes_the_usual_shapes(shape):
    network = CapsNet(shape, 3, filters=8, primary_types=32)
    model = network.training_model()
    model.compile(loss={"lengths": MarginLoss(), "reconstruction": SumOfSquares()})
    images = np.random.default_rng(0).random((2, *shape)).astype("float32")
    target = np.eye(3, dtype="float32")[:2]
    before = network.get_weights()
    loss = model.train_on_batch(
        {"images": images, "target": target}, {"lengths": target, "reconstruction": images}
    )
    assert np.isfinite(loss).all()
    assert any((a != b).any() for a, b in zip(before, network.get_weights(), strict=True))


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.5, 1e6])
def test_loss_and_gradients_are_finite(value, standardise, tiny):
    network = CapsNet((12, 12, 1), 3, standardise=standardise, **tiny)
    model = network.training_model()
    images = np.full((2, 12, 12, 1), value, "float32")
    target = keras.ops.one_hot(np.array([0, 2]), 3)

    def loss(images):
        outputs = model({"images": images, "target": target}, training=True)
        return MarginLoss()(target, outputs["lengths"]) + 0.0005 * SumOfSquares()(
            images, outputs["reconstruction"]
        )

    assert np.isfinite(array(loss(keras.ops.convert_to_tensor(images))))
    for gradient in gradients(loss, [images], model.trainable_variables):
        assert np.isfinite(gradient).all()


def test_only_standardised_images_are_seen_alike_in_any_light(tiny):
    generator = np.random.default_rng(0)
    images = generator.random((4, 12, 12, 1)).astype("float32")
    for standardise in (True, False):
        network = CapsNet((12, 12, 1), 3, standardise=standardise, **tiny)
        weights = [generator.normal(size=w.shape, scale=0.3) for w in network.weights]
        network.set_weights(weights)
        dark, light = (array(network(image)["lengths"]) for image in (images, 0.6 + 0.4 * images))
        assert np.allclose(dark, light, rtol=0.01) == standardise


def test_training_decodes_the_true_class_and_inference_the_longest(tiny):
    network = CapsNet((12, 12, 1), 3, **tiny)
    generator = np.random.default_rng(0)
    # The initial capsules are too short to show in the reconstruction.
    network.set_weights([generator.normal(size=w.shape, scale=0.3) for w in network.weights])
    images = generator.random((4, 12, 12, 1)).astype("float32")
    inference = {name: array(value) for name, value in network(images).items()}
    longest = inference["lengths"].argmax(-1)
    model = network.training_model()

    def decoded(labels):
        inputs = {"images": images, "target": np.eye(3, dtype="float32")[labels]}
        return array(model(inputs)["reconstruction"])

    np.testing.assert_allclose(decoded(longest), inference["reconstruction"], atol=1e-6)
    assert np.abs(decoded((longest + 1) % 3) - inference["reconstruction"]).max() > 1e-4


def test_config_round_trip(tiny):
    network = CapsNet((12, 12, 1), 3, **tiny)
    copy = CapsNet.from_config(network.get_config())
    copy.set_weights(network.get_weights())
    images = np.random.random((2, 12, 12, 1)).astype("float32")
    np.testing.assert_array_equal(array(copy(images)["lengths"]), array(network(images)["lengths"]))


_LOAD = """
import sys, numpy as np, keras, models.capsnet
model = keras.models.load_model(sys.argv[1], safe_mode=True)
outputs = model(np.load(sys.argv[2]))
to_array = keras.ops.convert_to_numpy
np.savez(sys.argv[3], **{name: to_array(value) for name, value in outputs.items()})
"""


@pytest.mark.parametrize("backend", INSTALLED)
def test_keras_file_in_a_fresh_process_and_on_another_backend(
    backend, tiny, tmp_path, fresh_python
):
    network = CapsNet((12, 12, 3), 4, **tiny)
    images = np.random.default_rng(0).random((5, 12, 12, 3)).astype("float32")
    network.save(tmp_path / "network.keras")
    np.save(tmp_path / "images.npy", images)
    fresh_python(
        _LOAD,
        tmp_path / "network.keras",
        tmp_path / "images.npy",
        tmp_path / "out.npz",
        ours=True,
        KERAS_BACKEND=backend,
    )
    with np.load(tmp_path / "out.npz") as loaded:
        for name, value in network(images).items():
            np.testing.assert_allclose(loaded[name], array(value), rtol=1e-4, atol=1e-5)


_TRAIN = """
import sys, json, numpy as np, keras
from models import detectors
images = np.load(sys.argv[1])
labels = np.arange(len(images)) % 3
settings = json.loads(sys.argv[2])
detector = detectors.get("capsnet", epochs=8, batch_size=30, learning_rate=0.01, **settings)
scorer = detector.fit(images[:240], labels[:240], calibration=images[240:])
print("RESULT", keras.backend.backend(), detector.history["lengths_accuracy"][-1])
"""


@pytest.mark.skipif("jax" not in INSTALLED, reason="needs JAX")
def test_the_same_code_trains_on_jax(toys, tiny, tmp_path, fresh_python):
    np.save(tmp_path / "images.npy", toys(300, 3, seed=0)[0])
    output = fresh_python(
        _TRAIN, tmp_path / "images.npy", json.dumps(tiny), ours=True, KERAS_BACKEND="jax"
    )
    backend, accuracy = output.split("RESULT")[1].split()
    assert backend == "jax"
    assert float(accuracy) > 0.9


def test_registered_under_our_package():
    assert keras.saving.get_registered_name(CapsNet) == "capsad>CapsNet"
