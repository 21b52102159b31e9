import keras
import numpy as np
import pytest
from keras import ops

from models import layers, losses, scores
from models.calibration import calibrate
from tests.backends import array, gradients

POLICIES = ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]
# Every layer with shapes of its inputs.
LAYERS = {
    "AttentionCapsules": (lambda **of: layers.AttentionCapsules(3, 6, **of), [(4, 40, 8)]),
    "CapsuleLength": (layers.CapsuleLength, [(4, 3, 6)]),
    "CapsuleMask": (layers.CapsuleMask, [(4, 3, 6), (4, 3)]),
    "ClassCapsules": (lambda **of: layers.ClassCapsules(3, 6, **of), [(4, 40, 8)]),
    "ClassCentres": (lambda **of: layers.ClassCentres(3, **of), [(4, 8)]),
    "ClassEmCapsules": (
        lambda **of: layers.ClassEmCapsules(3, **of),
        [(4, 3, 3, 5, 16), (4, 3, 3, 5)],
    ),
    "ConformalCalibration": (lambda **of: layers.ConformalCalibration(9, **of), [(4,)]),
    "ConvolutionalEmCapsules": (
        lambda **of: layers.ConvolutionalEmCapsules(3, **of),
        [(4, 5, 5, 2, 16), (4, 5, 5, 2)],
    ),
    "DepthwiseCapsules": (lambda **of: layers.DepthwiseCapsules(8, **of), [(4, 5, 6, 16)]),
    "GeometricTransformations": (layers.GeometricTransformations, [(4, 8, 8, 3)]),
    "ImageNetScaling": (lambda **of: layers.ImageNetScaling("caffe", **of), [(4, 8, 8, 3)]),
    "ImagePreprocessing": (
        lambda **of: layers.ImagePreprocessing((6, 6), **of),
        [(4, 8, 8, 3)],
    ),
    "NearestNeighbours": (lambda **of: layers.NearestNeighbours(9, 2, **of), [(4, 8)]),
    "PatchDistance": (lambda **of: layers.PatchDistance((5, 4), **of), [(4, 3, 3, 8)]),
    "PrimaryCapsules": (
        lambda **of: layers.PrimaryCapsules(4, 8, 3, **of),
        [(4, 9, 9, 16)],
    ),
    "RbfOneClass": (lambda **of: layers.RbfOneClass(9, 0.5, **of), [(4, 8)]),
    "RelativeMahalanobis": (lambda **of: layers.RelativeMahalanobis(3, **of), [(4, 8)]),
    "TrimBatch": (layers.TrimBatch, [(4, 3), (4, 8, 8, 3)]),
}


@pytest.fixture(params=["of the layer", "of all layers"])
def make(request):
    """A function that makes a layer with a policy, which is its own one or that of all layers."""
    kept = keras.config.dtype_policy()

    def function(name, policy):
        if request.param == "of the layer":
            return LAYERS[name][0](dtype=policy)
        keras.config.set_dtype_policy(policy)
        return LAYERS[name][0]()

    yield function
    keras.config.set_dtype_policy(kept)


def weights_of(layer):
    generator = np.random.default_rng(1)
    # Sorted, as scores for calibration are.
    return [np.sort(generator.normal(size=of.shape, scale=0.3)) for of in layer.weights]


def together(outputs):
    """The sum of all floating-point outputs, each with a weight of its own."""
    total = 0.0
    for output in keras.tree.flatten(outputs):
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(output.dtype)):
            shape = tuple(output.shape)
            weights = np.sin(np.arange(np.prod(shape))).reshape(shape).astype("float32")
            total += ops.sum(ops.cast(output, "float32") * ops.convert_to_tensor(weights))
    return total


def test_no_layer_is_forgotten():
    public = {name: getattr(layers, name) for name in layers.__all__}
    assert set(LAYERS) == {name for name, of in public.items() if isinstance(of, type)}


@pytest.mark.parametrize("kind", ["random", "zeros"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_those_of_float32(name, policy, kind, make):
    layer, exact = make(name, policy), LAYERS[name][0](dtype="float32")
    generator = np.random.default_rng(0)
    inputs = [
        (generator.random(shape) if kind == "random" else np.zeros(shape)).astype("float32")
        for shape in LAYERS[name][1]
    ]
    for built in (layer, exact):
        built(*map(ops.convert_to_tensor, inputs))
        built.set_weights(weights_of(built))
    outputs, expected = (
        keras.tree.flatten(of(*map(ops.convert_to_tensor, inputs))) for of in (layer, exact)
    )
    # Only the convolution of PrimaryCapsules is less exact.
    tolerance = 0.02 if name == "PrimaryCapsules" else 1e-6
    for output, value in zip(outputs, expected, strict=True):
        assert keras.backend.standardize_dtype(output.dtype) == keras.backend.standardize_dtype(
            value.dtype
        )
        assert np.isfinite(array(output)).all()
        np.testing.assert_allclose(array(output), array(value), rtol=tolerance, atol=tolerance)
    symbolic = layer(*(keras.KerasTensor(of.shape, of.dtype) for of in inputs))
    assert [of.dtype for of in keras.tree.flatten(symbolic)] == [
        keras.backend.standardize_dtype(of.dtype) for of in outputs
    ]

    found, gradients_expected = (
        gradients(lambda *values, of=of: together(of(*values)), inputs, of.trainable_variables)
        for of in (layer, exact)
    )
    for gradient, value in zip(found, gradients_expected, strict=True):
        assert np.isfinite(gradient).all()
        scale = np.abs(value).max() + 1e-3
        tolerance = 0.1 if name == "PrimaryCapsules" else 1e-5
        np.testing.assert_allclose(gradient / scale, value / scale, atol=tolerance)


def test_losses_and_scores_are_float32_whatever_they_are_given():
    generator = np.random.default_rng(0)
    # Squares of these numbers are 0 in float16, and their differences are in bfloat16.
    target = np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    images = generator.uniform(1e-5, 2e-5, (4, 5, 5, 1)).astype("float16")
    others = generator.uniform(1e-5, 2e-5, (4, 5, 5, 1)).astype("float16")
    lengths = generator.random((4, 3)).astype("float16")
    for dtype in ("float16", "bfloat16"):
        for loss, true, predicted in (
            (losses.MarginLoss, target, lengths),
            (losses.SpreadLoss, target, lengths),
            (losses.SumOfSquares, images, others),
            (losses.PixelCrossentropy, images, others),
            (losses.Value, target[:, 0], lengths[:, 0]),
        ):
            found = loss(dtype=dtype)(true, predicted)
            assert keras.backend.standardize_dtype(found.dtype) == "float32"
            expected = loss()(true.astype("float32"), predicted.astype("float32"))
            np.testing.assert_allclose(array(found), array(expected), rtol=1e-6)
    for score, arguments in (
        (scores.prediction_probability, [lengths]),
        (scores.maximum_softmax_probability, [lengths]),
        (scores.reconstruction_error, [images, others]),
    ):
        found = score(*map(ops.convert_to_tensor, arguments))
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        expected = score(*(ops.convert_to_tensor(of.astype("float32")) for of in arguments))
        np.testing.assert_array_equal(array(found), array(expected))


@pytest.mark.parametrize("policy", POLICIES)
def test_conformal_scores_are_not_rounded(policy):
    count = 2000
    # Of 2000 numbers in [0.5, 1), bfloat16 tells 128 apart.
    normal = np.linspace(0.5, 1, count, endpoint=False, dtype="float32")
    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((), name="images", dtype="float32")
        scorer = calibrate(keras.Model(inputs, {"pp": keras.ops.abs(inputs)}), normal, "pp")
        trimmed = layers.TrimBatch()(scorer.output["anomaly_score"], scorer.input)
        found = array(keras.Model(scorer.input, trimmed)(ops.convert_to_tensor(normal)))
    finally:
        keras.config.set_dtype_policy(kept)
    expected = 1 - np.arange(2, count + 2) / (count + 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(set(found.tolist())) == count
