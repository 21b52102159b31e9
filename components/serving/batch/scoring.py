"""Runs the model in a Beam pipeline."""

from collections.abc import Iterator

import apache_beam as beam
from apache_beam.utils import shared

from components.serving.batch.reading import dead_letter
from components.serving.files import Unreadable, score_batch
from components.serving.runner import SavedModelClient


class ScoreBatch(beam.DoFn):
    """Turns a batch of pairs (id, encoded image) into records with `id` and the named outputs.

    Args:
        model_dir: folder of the SavedModel, which each worker process loads once.
        names: names of the outputs that are kept.
    """

    def __init__(self, model_dir: str, names: tuple[str, ...]):
        self._model_dir = model_dir
        self._names = names
        self._shared = shared.Shared()

    def setup(self) -> None:
        """Loads the model, unless another thread of the process has loaded it."""
        self._client = self._shared.acquire(lambda: SavedModelClient(self._model_dir))

    def process(self, batch: list[tuple[str, bytes]]) -> Iterator[dict[str, object]]:
        """Yields a record for each image, or a dead letter if it cannot be decoded."""
        identities, images = zip(*batch, strict=True)
        for result in score_batch(self._client, identities, images):
            if isinstance(result, Unreadable):
                yield dead_letter(result.name, result.reason)
                continue
            values = {name: result.outputs[name].tolist() for name in self._names}
            for index, identity in enumerate(result.names):
                yield {"id": identity, **{name: values[name][index] for name in self._names}}
