"""The model within Beam."""

from collections.abc import Iterator

import apache_beam as beam
import tensorflow as tf
from apache_beam.utils import shared
from tensorflow.core.protobuf import saved_model_pb2

from components.batch_scoring.reading import dead_letter
from components.scoring.base import SIGNATURE, one_line
from models.errors import UserError


def output_kinds(model_dir: str) -> dict[str, str]:
    """Name -> kind of what is kept of the signature's outputs, all but the reconstruction.

    An image has of each a `text`, a `number` or `numbers`.

    Raises:
        UserError: if there is no SavedModel, or not one of ours.
    """
    path = f"{model_dir}/saved_model.pb"
    if not tf.io.gfile.exists(path):
        raise UserError(
            f"{model_dir} holds no SavedModel: name a version's folder in a run's `serving`."
        )
    model = saved_model_pb2.SavedModel()
    with tf.io.gfile.GFile(path, "rb") as file:
        model.ParseFromString(file.read())
    signatures = model.meta_graphs[0].signature_def
    if SIGNATURE not in signatures:
        raise UserError(f"The SavedModel in {model_dir} has no signature `{SIGNATURE}`.")
    return {
        name: _kind(tensor)
        for name, tensor in sorted(signatures[SIGNATURE].outputs.items())
        if name != "reconstruction"
    }


def _kind(tensor):
    if tensor.dtype == tf.string.as_datatype_enum:
        return "text"
    return "number" if len(tensor.tensor_shape.dim) == 1 else "numbers"


class ScoreBatch(beam.DoFn):
    """Batch of (id, encoded image) -> records: `id` and the named outputs.

    Args:
        model_dir: folder of the SavedModel, loaded once by each worker process.
        names: of the outputs that are kept.
    """

    def __init__(self, model_dir: str, names: tuple[str, ...]):
        self._model_dir = model_dir
        self._names = names
        self._shared = shared.Shared()

    def setup(self) -> None:
        """Loads the model or takes the one that another thread has loaded."""
        self._model = self._shared.acquire(lambda: tf.saved_model.load(self._model_dir))

    def process(self, batch: list[tuple[str, bytes]]) -> Iterator[dict[str, object]]:
        """Halves a batch with an image that cannot be decoded, until it is alone: a dead letter."""
        identities, images = zip(*batch, strict=True)
        try:
            outputs = self._model.signatures[SIGNATURE](images=tf.constant(images))
        except tf.errors.InvalidArgumentError as error:
            if len(batch) == 1:
                yield dead_letter(identities[0], one_line(error.message))
                return
            middle = len(batch) // 2
            yield from self.process(batch[:middle])
            yield from self.process(batch[middle:])
            return
        values = {name: _plain(outputs[name].numpy()) for name in self._names}
        for index, identity in enumerate(identities):
            yield {"id": identity, **{name: values[name][index] for name in self._names}}


def _plain(array):
    """Lists of floats and str, not of TensorFlow's bytes."""
    return [text.decode() for text in array] if array.dtype == object else array.tolist()
