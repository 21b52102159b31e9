import keras
import numpy as np
import pytest

from models import device
from models.layers import PrimaryCapsules
from models.layers.frequency_convolution import frequency_convolution, multiply_adds
from tests.backends import array, gradients, tensorflow_only

# Height, width, channels, kernel, strides: even and odd sizes, an RGB image, every remainder.
SHAPES = [
    (20, 20, 8, 9, 2),
    (20, 17, 3, 9, 2),
    (21, 20, 3, 4, 2),
    (9, 9, 2, 9, 1),
    (9, 9, 2, 9, 2),
    (13, 10, 3, 5, 3),
    (12, 14, 5, 3, 1),
    (24, 24, 4, 9, 2),
    (11, 11, 2, 2, 3),
    (6, 5, 1, 1, 1),
    (32, 32, 3, 9, 2),
    (21, 26, 4, 3, 1),
    (20, 152, 2, 9, 2),
    (11, 70, 2, 3, 1),
]


def relative_error(value, expected):
    value, expected = array(value), array(expected)
    return np.abs(value - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("height", "width", "channels", "size", "strides"), SHAPES)
def test_output_and_gradients_equal_the_direct_convolution(height, width, channels, size, strides):
    generator = np.random.default_rng(0)
    images = generator.normal(size=(3, height, width, channels)).astype("float32")
    kernel = generator.normal(size=(size, size, channels, 6)).astype("float32")

    def run(convolve):
        output = convolve(*map(keras.ops.convert_to_tensor, (images, kernel)))
        # A given gradient from above: a function's own would differ by the output's rounding.
        above = np.random.default_rng(1).normal(size=output.shape).astype("float32")
        above = keras.ops.convert_to_tensor(above)
        return output, *gradients(
            lambda *values: keras.ops.sum(convolve(*values) * above), [images, kernel]
        )

    found = run(lambda x, k: frequency_convolution(x, k, strides))
    expected = run(lambda x, k: keras.ops.conv(x, k, strides, "valid"))
    for value, exact in zip(found, expected, strict=True):
        assert value.shape == exact.shape
        # The gradient of what the kernel never reaches is zero, and stays so.
        assert relative_error(value, exact) < 1e-5


def test_a_model_trained_with_one_method_loads_with_the_other():
    features = np.random.default_rng(0).random((2, 20, 20, 16)).astype("float32")
    layers = {method: PrimaryCapsules(4, 4, method=method) for method in ("direct", "frequency")}
    outputs = {method: layer(features) for method, layer in layers.items()}
    direct, frequency = layers["direct"], layers["frequency"]
    assert [w.path.split("/")[-2:] for w in direct.weights] == [
        w.path.split("/")[-2:] for w in frequency.weights
    ]
    frequency.set_weights(direct.get_weights())
    assert relative_error(frequency(features), outputs["direct"]) < 1e-5


@pytest.mark.parametrize(("accelerator", "expected"), [(True, "direct"), (False, "frequency")])
def test_auto_takes_the_frequency_domain_on_a_cpu_alone(accelerator, expected, monkeypatch):
    monkeypatch.setattr("models.device.has_accelerator", lambda: accelerator)
    features = np.random.default_rng(0).random((40, 20, 20, 64)).astype("float32")
    auto = PrimaryCapsules(8, 8)
    auto(features)
    chosen = PrimaryCapsules(8, 8, method=expected)
    chosen(features)
    chosen.set_weights(auto.get_weights())
    np.testing.assert_array_equal(array(auto(features)), array(chosen(features)))
    for target, method in (("gpu", "direct"), ("cpu", "frequency")):
        same = PrimaryCapsules(8, 8, method=method)
        same.build(features.shape)
        same.set_weights(auto.get_weights())
        with device.built_for(target):
            np.testing.assert_array_equal(array(auto(features)), array(same(features)))
    np.testing.assert_array_equal(array(auto(features)), array(chosen(features)))


def test_unknown_serving_devices_are_refused():
    with pytest.raises(ValueError, match="cpu or gpu, not 'npu'"), device.built_for("npu"):
        pass


@tensorflow_only
def test_this_machine_is_told_right():
    import tensorflow as tf

    assert device.has_accelerator() == bool(tf.config.list_physical_devices("GPU"))


def test_multiply_adds():
    # Sabour's primary capsules: 118 products instead of 36 * 25 (of 81 / 100 each).
    direct, frequency = multiply_adds((20, 20, 256), 9, 256, 2)
    assert direct == 36 * 81 * 256 * 256
    products = 118 * 1024 * 256
    transforms = 118 * (100 * 1024 + 36 * 256 + 25 * 1024 * 256 / 100)
    assert frequency == products + transforms
    direct, frequency = multiply_adds((9, 9, 256), 9, 256, 2)
    assert frequency > direct


@tensorflow_only
def test_few_images_are_convolved_directly_and_many_in_the_frequency_domain():
    import tensorflow as tf

    features = np.random.default_rng(0).random((40, 20, 20, 64)).astype("float32")
    auto = PrimaryCapsules(8, 8)
    function = tf.function(auto, input_signature=[tf.TensorSpec((None, 20, 20, 64))])
    for count, expected in ((1, "direct"), (40, "frequency")):
        chosen = PrimaryCapsules(8, 8, method=expected)
        images = features[:count]
        auto(images), chosen(images)
        chosen.set_weights(auto.get_weights())
        np.testing.assert_array_equal(function(images), tf.function(chosen)(images))


def test_kept_values_are_used_in_scoring_alone():
    features = np.random.default_rng(0).random((20, 20, 20, 64)).astype("float32")
    layer = PrimaryCapsules(8, 8)
    expected = array(layer(features))
    layer.kept_values = lambda: layer.kernel_values()
    np.testing.assert_array_equal(array(layer(features)), expected)
    layer.kept_values = lambda: 0 * layer.kernel_values()
    np.testing.assert_array_equal(array(layer(features)), 0)
    np.testing.assert_array_equal(array(layer(features, training=True)), expected)


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="auto, direct or frequency"):
        PrimaryCapsules(method="fft")


def test_both_methods_compute_in_the_layers_precision():
    features = np.random.default_rng(0).random((2, 20, 20, 16)).astype("float32")
    for method in ("direct", "frequency"):
        layer = PrimaryCapsules(4, 4, method=method, dtype="mixed_bfloat16")
        layer.build(features.shape)
        convolved = layer._convolve(keras.ops.cast(features, "bfloat16"), False)
        assert keras.backend.standardize_dtype(convolved.dtype) == "bfloat16"
        # The capsules themselves
        assert keras.backend.standardize_dtype(layer(features).dtype) == "float32"
