"""Writes the SavedModel with its signatures and its warm-up requests."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence

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
from models.score_names import ANOMALY_SCORE, LEAST_ALPHA

MOST_SIMILAR_CLASS = "most_similar_class"
NEAREST_IMAGE = "nearest_image"
# TensorFlow Serving expects the requests in this file.
WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")


def export(
    scorer: keras.Model,
    image_size: tuple[int, int],
    folder: str,
    class_names: Sequence[str] | None = None,
    white: int = WHITE,
    image_names: Sequence[str] | None = None,
    serving_device: str = "cpu",
) -> None:
    """Writes `scorer` as a SavedModel that needs none of our code.

    It has three signatures, each of which takes a batch of size B >= 1:

    * `serving_default` takes `examples`, string (B,): serialized tf.train.Examples with
      `image/encoded`.
    * `score_images` takes `images`, string (B,): encoded PNG, JPEG, GIF or BMP of any sizes.
    * `score_arrays` takes `images`, uint8 (B, H, W, K), for any H and W.

    All signatures return the named outputs of the scorer, and `most_similar_class`, string (B,),
    which is the name of the most probable class. If the scorer is calibrated, there is
    `least_alpha`, float (B,), the same for all images, see `models.score_names`. If the scorer
    tells the number of the `nearest_image`, the signatures return its name instead, string (B,).

    Args:
        scorer: model that the `fit` of a detector returns.
        image_size: height and width to which images are resized.
        folder: folder of the SavedModel.
        class_names: names of the normal classes, in the order of their labels. `None` means that
            the labels are the names.
        white: grey value of 16-bit grey images that becomes 255.
        image_names: names of the training images. `None` means that the numbers are the names.
        serving_device: `cpu` or `gpu`, for which the graphs are built. They do not depend on the
            machine that exports them, and run on both, but on the other one more slowly.

    Raises:
        ValueError: if there is no such device.
    """
    channels = scorer.input.shape[-1]
    arrays = tf.TensorSpec([None, None, None, channels], tf.uint8, "images")
    encoded = tf.TensorSpec([None], tf.string, "images")

    # The graph of the scorer is large. As functions, the signatures share it.
    @tf.function(input_signature=[arrays], autograph=False)
    def score_arrays(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = dict(scorer(images))
        probabilities = outputs["class_probabilities"]
        names = tf.constant(class_names or [str(i) for i in range(probabilities.shape[-1])])
        if image_names is not None and NEAREST_IMAGE in outputs:
            outputs[NEAREST_IMAGE] = tf.gather(tf.constant(image_names), outputs[NEAREST_IMAGE])
        if ANOMALY_SCORE in outputs:
            least = 1 / (scorer.get_layer(ANOMALY_SCORE).size + 1)
            outputs[LEAST_ALPHA] = tf.fill(tf.shape(outputs[ANOMALY_SCORE]), least)
        return {**outputs, MOST_SIMILAR_CLASS: tf.gather(names, tf.argmax(probabilities, axis=-1))}

    @tf.function(input_signature=[encoded], autograph=False)
    def score_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # Images of different sizes must be resized before they can form a batch.
        return score_arrays(
            tf.map_fn(
                lambda encoded: decode_image(encoded, image_size, channels, white),
                images,
                fn_output_signature=tf.TensorSpec((*image_size, channels), tf.uint8),
            )
        )

    def score_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {ENCODED: tf.io.FixedLenFeature([], tf.string)}
        return score_images(tf.io.parse_example(examples, spec)[ENCODED])

    # The archive finds the variables of the signatures. Tracking the scorer would store all twice.
    archive = keras.export.ExportArchive()
    with built_for(serving_device), _kept_values(scorer, archive):
        for name, function, signature in (
            ("serving_default", score_examples, tf.TensorSpec([None], tf.string, "examples")),
            ("score_images", score_images, encoded),
            ("score_arrays", score_arrays, arrays),
        ):
            archive.add_endpoint(name, function, input_signature=[signature])
        archive.write_out(folder, verbose=False)
    write_sums(folder)


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
