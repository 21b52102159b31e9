"""Writes the SavedModel with its signatures and its warm-up requests."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from components.data.decode import decode_image
from components.data.examples import ENCODED, make_example
from components.data.formats import WHITE
from components.data.protocol import ANOMALY_LABEL
from components.serving.sums import write_sums
from models.device import built_for
from models.layers import PrimaryCapsules
from models.score_names import ANOMALY_SCORE, FLAGGED, LEAST_ALPHA, PICTURES

MOST_SIMILAR_CLASS = "most_similar_class"
NEAREST_IMAGE = "nearest_image"
# TensorFlow Serving leaves other files in this folder alone.
EXTRAS = "assets.extra"
KERAS_FILE = os.path.join(EXTRAS, "model.keras")
ARGUMENTS_FILE = os.path.join(EXTRAS, "export.json")
# TensorFlow Serving expects the requests in this file.
WARMUP_FILE = os.path.join(EXTRAS, "tf_serving_warmup_requests")


def export(
    scorer: keras.Model,
    image_size: tuple[int, int],
    folder: str,
    *,
    class_names: Sequence[str] | None = None,
    image_names: Sequence[str] | None = None,
    white: int = WHITE,
    alpha: float = 0.05,
    serving_device: str = "cpu",
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes `scorer` as a SavedModel that needs none of our code.

    These signatures take a batch of size B >= 0, and return a value for each image:

    * `serving_default` takes `examples`, string (B,): serialized tf.train.Examples with
      `image/encoded`.
    * `score_images` takes `images`, string (B,): encoded PNG, JPEG, GIF or BMP of any sizes.
    * `score_arrays` takes `images`, uint8 (B, H, W, K), for any H and W.
    * `explain_images` and `explain_arrays` take the same as these two, and return the pictures
      `reconstruction` and `anomaly_map` in addition, as far as the detector has them.

    They return the named outputs of the scorer, and `most_similar_class`, string (B,), which is the
    name of the most probable class. If the scorer is calibrated, there are `flagged`, bool (B,),
    which is `anomaly_score > 1 - alpha`, and `least_alpha`, float (B,), the same for all images,
    see `models.score_names`. If the scorer tells the number of the `nearest_image`, the signatures
    return its name instead, string (B,). A score that is not finite becomes the lowest number, and
    counts as least normal; other values that are not finite become 0.

    The signature `metadata` takes `query`, string (B,), whatever it says, and returns `metadata`,
    string (B,): JSON of `about` and of what else is known of the model.

    The folder `assets.extra` has the model for Keras, and the arguments of this function, with
    which `components.serving.recalibration` exports it again.

    Args:
        scorer: model that the `fit` of a detector returns.
        image_size: height and width to which images are resized.
        folder: folder of the SavedModel.
        class_names: names of the normal classes, in the order of their labels. `None` means that
            the labels are the names.
        image_names: names of the training images. `None` means that the numbers are the names.
        white: grey value of 16-bit grey images that becomes 255.
        alpha: share of normal images that `flagged` may flag by mistake.
        serving_device: `cpu` or `gpu`, for which the graphs are built. They do not depend on the
            machine that exports them, and run on both, but on the other one more slowly.
        about: what is known of the training, such as the name of the detector; JSON values.

    Raises:
        ValueError: if there is no such device.
    """
    arguments = {
        "image_size": image_size,
        "class_names": class_names,
        "image_names": image_names,
        "white": white,
        "alpha": alpha,
        "serving_device": serving_device,
        "about": about or {},
    }
    channels = scorer.input.shape[-1]
    arrays = tf.TensorSpec([None, None, None, channels], tf.uint8, "images")
    encoded = tf.TensorSpec([None], tf.string, "images")
    known = json.dumps(metadata(scorer, arguments), ensure_ascii=False)

    # The graph of the scorer is large. As functions, the signatures share it.
    @tf.function(input_signature=[arrays], autograph=False)
    def explain_arrays(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return served_outputs(scorer, scorer(images), arguments)

    @tf.function(input_signature=[encoded], autograph=False)
    def decode(images: tf.Tensor) -> tf.Tensor:
        # Images of different sizes must be resized before they can form a batch.
        return tf.map_fn(
            lambda encoded: decode_image(encoded, image_size, channels, white),
            images,
            fn_output_signature=tf.TensorSpec((*image_size, channels), tf.uint8),
        )

    def score_arrays(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = explain_arrays(images)
        return {name: value for name, value in outputs.items() if name not in PICTURES}

    def score_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {ENCODED: tf.io.FixedLenFeature([], tf.string)}
        return score_arrays(decode(tf.io.parse_example(examples, spec)[ENCODED]))

    # The archive finds the variables of the signatures. Tracking the scorer would store all twice.
    archive = keras.export.ExportArchive()
    with built_for(serving_device), _kept_values(scorer, archive):
        for name, function, signature in (
            ("serving_default", score_examples, tf.TensorSpec([None], tf.string, "examples")),
            ("score_images", lambda images: score_arrays(decode(images)), encoded),
            ("score_arrays", score_arrays, arrays),
            ("explain_images", lambda images: explain_arrays(decode(images)), encoded),
            ("explain_arrays", explain_arrays, arrays),
            (
                "metadata",
                lambda query: {"metadata": tf.fill(tf.shape(query), known)},
                tf.TensorSpec([None], tf.string, "query"),
            ),
        ):
            archive.add_endpoint(name, function, input_signature=[signature])
        archive.write_out(folder, verbose=False)
    _write_extras(scorer, arguments, folder)
    write_sums(folder)


def served_outputs(
    scorer: keras.Model, outputs: Mapping[str, tf.Tensor], arguments: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Makes what the signatures return of the outputs of `scorer`, pictures included.

    Args:
        scorer: model that the `fit` of a detector returns.
        outputs: its outputs for a batch of images.
        arguments: `class_names`, `image_names` and `alpha`, see `export`.
    """
    outputs = {name: _finite(value) for name, value in outputs.items()}
    image_names = arguments["image_names"]
    if image_names is not None and NEAREST_IMAGE in outputs:
        outputs[NEAREST_IMAGE] = tf.gather(tf.constant(image_names), outputs[NEAREST_IMAGE])
    if ANOMALY_SCORE in outputs:
        score = outputs[ANOMALY_SCORE]
        outputs[LEAST_ALPHA] = tf.fill(tf.shape(score), 1 / (_calibration_size(scorer) + 1))
        outputs[FLAGGED] = score > 1 - arguments["alpha"]
    probabilities = outputs["class_probabilities"]
    names = tf.constant(arguments["class_names"] or _numbers(probabilities.shape[-1]))
    return {**outputs, MOST_SIMILAR_CLASS: tf.gather(names, tf.argmax(probabilities, axis=-1))}


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _calibration_size(scorer: keras.Model) -> int:
    return scorer.get_layer(ANOMALY_SCORE).size


def metadata(scorer: keras.Model, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the signature `metadata` tells.

    Args:
        scorer: model that the `fit` of a detector returns.
        arguments: the arguments of `export`.
    """
    known = {
        **arguments["about"],
        "classes": arguments["class_names"]
        or _numbers(scorer.output["class_probabilities"].shape[-1]),
        "image_size": arguments["image_size"],
        "channels": scorer.input.shape[-1],
    }
    if ANOMALY_SCORE in scorer.output:
        size = _calibration_size(scorer)
        known |= {
            "alpha": arguments["alpha"],
            "threshold": 1 - arguments["alpha"],
            "calibration_images": size,
            "least_alpha": 1 / (size + 1),
        }
    digest = hashlib.sha256()
    for variable in scorer.variables:
        digest.update(keras.ops.convert_to_numpy(variable.value).tobytes())
    return {**known, "model": digest.hexdigest()[:16]}


def _finite(value: tf.Tensor) -> tf.Tensor:
    """JSON has no NaN, and no server may call one a score."""
    if not value.dtype.is_floating:
        return value
    lowest = value.dtype.min if value.shape.rank == 1 else 0.0
    return tf.where(tf.math.is_finite(value), value, tf.cast(lowest, value.dtype))


def _write_extras(scorer: keras.Model, arguments: dict[str, Any], folder: str) -> None:
    tf.io.gfile.makedirs(os.path.join(folder, EXTRAS))
    with tempfile.TemporaryDirectory() as local:
        path = os.path.join(local, "model.keras")
        scorer.save(path)
        tf.io.gfile.copy(path, os.path.join(folder, KERAS_FILE), overwrite=True)
    with tf.io.gfile.GFile(os.path.join(folder, ARGUMENTS_FILE), "w") as file:
        file.write(json.dumps(arguments, ensure_ascii=False))


class _ComputedOnLoad(tf.saved_model.experimental.TrackableResource):
    """A constant that is computed when the SavedModel is loaded, because it is too large to store.

    Args:
        compute: function that computes it from variables.
        name: name in the process. Equal names must mean equal constants.
    """

    def __init__(self, compute: Callable[[], tf.Tensor], name: str):
        super().__init__()
        self._compute = tf.function(compute, input_signature=(), autograph=False)
        self._spec = self._compute.get_concrete_function().structured_outputs
        self._name = name

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(
            dtype=self._spec.dtype, shape=self._spec.shape, shared_name=self._name
        )

    def _initialize(self) -> None:
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=self._compute())

    def read(self) -> tf.Tensor:
        """The constant."""
        return tf.raw_ops.ReadVariableOp(resource=self.resource_handle, dtype=self._spec.dtype)


@contextlib.contextmanager
def _kept_values(scorer: keras.Model, archive: keras.export.ExportArchive) -> Iterator[None]:
    """Lets primary capsules transform their kernel once, when the model is loaded."""
    layers = [
        layer
        for layer in _all_layers(scorer)
        if isinstance(layer, PrimaryCapsules) and layer.may_use_frequencies
    ]
    for layer in layers:
        kernel = keras.ops.convert_to_numpy(layer.convolution.kernel)
        constant = _ComputedOnLoad(
            layer.kernel_values, f"capsad-{hashlib.sha256(kernel.tobytes()).hexdigest()}"
        )
        archive.track(constant)
        layer.kept_values = constant.read
    try:
        yield
    finally:
        for layer in layers:
            layer.kept_values = None


def _all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _all_layers(layer)


def write_warmup_requests(folder: str, images: np.ndarray) -> None:
    """Writes a request for each signature, which TensorFlow Serving replays when it loads a model.

    Without these requests, the first clients would wait until TensorFlow has prepared its graphs.

    Args:
        folder: folder of the SavedModel.
        images: images of the requests, uint8 array, shape (B, H, W, K), B >= 1.
    """
    examples = [make_example(image, ANOMALY_LABEL, "", [], "") for image in images]
    encoded = [example.features.feature[ENCODED].bytes_list.value[0] for example in examples]
    path = os.path.join(folder, WARMUP_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for signature, name, batch in (
            ("serving_default", "examples", [e.SerializeToString() for e in examples]),
            ("score_images", "images", encoded),
            ("score_arrays", "images", images),
            ("explain_images", "images", encoded),
            ("explain_arrays", "images", images),
            ("metadata", "query", [b""]),
        ):
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(signature_name=signature),
                inputs={name: tf.make_tensor_proto(batch)},
            )
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
    write_sums(folder)
