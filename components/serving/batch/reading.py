"""From inputs to encoded images; what cannot be read becomes a dead letter."""

import csv
import os
from collections.abc import Iterator

import apache_beam as beam
import tensorflow as tf
from google.protobuf.message import DecodeError

from components.data.examples import ENCODED, ID
from components.serving.batch import inputs

DEAD = "dead"


def dead_letter(identity: str, reason: object) -> beam.pvalue.TaggedOutput:
    """What is kept of a record that cannot be scored."""
    return beam.pvalue.TaggedOutput(DEAD, {"id": identity, "reason": str(reason)})


class FindShards(beam.DoFn):
    """Resolved input -> its shards."""

    def process(self, path: str) -> Iterator[inputs.Shard]:
        """Tags a manifest that breaks off as dead."""
        try:
            yield from inputs.shards(path)
        except (OSError, ValueError, csv.Error) as error:
            yield dead_letter(path, error)


class ReadShard(beam.DoFn):
    """Shard -> (id, encoded image): one at a time, so that memory does not grow with the shard.

    The id of an image is its path, as the manifest has it; that of an Example its feature `id`
    or, without, its file and place.
    """

    def process(self, shard: inputs.Shard) -> Iterator[tuple[str, bytes]]:
        """Tags files and records that cannot be read as dead."""
        for name in shard.names:
            read = _read_image if shard.are_images else _read_examples
            # A file's name may be no text; an id always is.
            yield from read(os.fsencode(name).decode(errors="replace"), shard.path(name))


def _read_image(name, path):
    try:
        with inputs.open_file(path) as file:
            encoded = file.read()
    except (OSError, ValueError) as error:  # ValueError: of a scheme without a file system
        yield dead_letter(name, getattr(error, "strerror", None) or error)
    else:
        yield name, encoded


def _read_examples(name, path):
    compression = "GZIP" if path.endswith(".gz") else ""
    records = tf.data.TFRecordDataset(path, compression).as_numpy_iterator()
    place = 0
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except tf.errors.OpError as error:  # the rest of the file is lost
            yield dead_letter(f"{name}:{place}", f"not readable as TFRecords: {error.message}")
            return
        yield _parse(record, f"{name}:{place}")
        place += 1


def _parse(record, identity):
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return dead_letter(identity, "not a tf.Example")
    if features[ID].bytes_list.value:
        identity = features[ID].bytes_list.value[0].decode(errors="replace")
    if not features[ENCODED].bytes_list.value:
        return dead_letter(identity, f"the tf.Example has no {ENCODED}")
    return identity, features[ENCODED].bytes_list.value[0]
