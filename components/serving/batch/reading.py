"""Reads encoded images from inputs. A record that cannot be read becomes a dead letter."""

import csv
import gzip
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import apache_beam as beam
import google_crc32c
import tensorflow as tf
from google.protobuf.message import DecodeError

from components.data.examples import ENCODED, ID
from components.data.folder import UNREADABLE, Table, printable
from components.data.formats import UnreadableError, to_decodable
from components.serving.batch import inputs

DEAD, LEFT_OUT = "dead", "left_out"
DAMAGED = "the record is damaged or cut off"
# A record has four parts: its length, the checksum of the length, its content, and the checksum of
# the content.
_HEADER, _CHECK = struct.Struct("<QI"), struct.Struct("<I")


def dead_letter(identity: str, reason: object) -> Any:
    """Makes the tagged output for a record that cannot be scored."""
    return _tagged(DEAD, {"id": identity, "reason": str(reason)})


def _tagged(tag: str, value: object) -> Any:
    """Makes a tagged output.

    Its type is `Any`, because Beam takes the result type of `DoFn.process` for the type of the main
    output alone.
    """
    return beam.pvalue.TaggedOutput(tag, value)


class FindShards(beam.DoFn):
    """Turns a resolved input into its shards."""

    def process(self, path: str) -> Iterator[inputs.Shard]:
        """Yields the shards, and a dead letter for each manifest or file that cannot be read.

        It also yields the number of files that were left out of a folder, for each outcome.
        """
        table = Table()
        try:
            yield from inputs.shards(path, table)
        except (OSError, ValueError, csv.Error) as error:
            yield dead_letter(path, error)
        for name in table.names.pop(UNREADABLE, ()):
            identity, _, reason = name.rpartition(" (")
            yield dead_letter(identity, reason.removesuffix(")"))
        for outcome in table.names:
            yield _tagged(LEFT_OUT, (outcome, table.counts[outcome]))


class ReadShard(beam.DoFn):
    """Turns a shard into pairs of id and encoded image.

    The pairs are yielded one at a time, so that memory does not grow with the shard. The id of an
    image is its path, as it is in the manifest. The id of an Example is its feature `id`. If it has
    none, the id is made of its file and its place in the file.

    Args:
        max_pixels: largest number of pixels of an image.
    """

    def __init__(self, max_pixels: int):
        self._max_pixels = max_pixels

    def process(self, shard: inputs.Shard) -> Iterator[tuple[str, bytes]]:
        """Yields pairs, and a dead letter for each file or record that cannot be read."""
        for name in shard.names:
            read = _read_image if shard.are_images else _read_examples
            # The name of a file may be any bytes, but an id must be a text.
            for found in read(printable(name), shard.path(name)):
                yield self._decodable(*found) if isinstance(found, tuple) else found

    def _decodable(self, identity: str, encoded: bytes) -> tuple[str, bytes]:
        try:
            return identity, to_decodable(encoded, self._max_pixels)
        except UnreadableError as error:
            return dead_letter(identity, error)


def _read_image(name: str, path: str) -> Iterator[tuple[str, bytes]]:
    try:
        with inputs.open_file(path) as file:
            encoded = file.read()
    except Exception as error:  # Each file system has its own errors.
        yield dead_letter(name, getattr(error, "strerror", None) or error)
    else:
        yield name, encoded


def _read_examples(name: str, path: str) -> Iterator[tuple[str, bytes]]:
    try:
        with inputs.open_file(path) as file:
            records = gzip.GzipFile(fileobj=file) if path.endswith(".gz") else file
            for place, record in enumerate(read_records(records)):
                identity = f"{name}:{place}"
                yield dead_letter(identity, DAMAGED) if record is None else _parse(record, identity)
    except (OSError, EOFError, zlib.error) as error:
        yield dead_letter(name, getattr(error, "strerror", None) or error)


def read_records(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes | None]:
    """Reads the records of a TFRecord file, including those after a damaged record.

    TensorFlow's own reader stops at the first damaged record.

    Args:
        file: open file.

    Yields:
        The content of each record, or `None` for a record whose content is damaged or cut off.

    Raises:
        OSError: if the file does not begin with a record, or if the length of a later record is
            damaged, so that nobody knows where the next one begins.
    """
    place = 0
    while header := file.read(_HEADER.size):
        if len(header) < _HEADER.size:
            yield None
            return
        length, length_check = _HEADER.unpack(header)
        if _masked_crc(header[:8]) != length_check and place:
            raise OSError(
                f"the length of record {place} is wrong, so it and all records behind it are lost"
            )
        if _masked_crc(header[:8]) != length_check:
            raise OSError("not a file of TFRecords")
        content, check = file.read(length), file.read(_CHECK.size)
        if len(check) < _CHECK.size:
            yield None
            return
        yield content if _masked_crc(content) == _CHECK.unpack(check)[0] else None
        place += 1


def _masked_crc(content: bytes) -> int:
    """Computes the checksum of TFRecords, which is a rotated CRC-32C plus a constant."""
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _parse(record: bytes, identity: str) -> tuple[str, bytes]:
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return dead_letter(identity, "not a tf.Example")
    if features[ID].bytes_list.value:
        identity = features[ID].bytes_list.value[0].decode(errors="backslashreplace")
    if not features[ENCODED].bytes_list.value:
        return dead_letter(identity, f"the tf.Example has no {ENCODED}")
    return identity, features[ENCODED].bytes_list.value[0]
