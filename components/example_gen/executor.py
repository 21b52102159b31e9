"""Executor of HoldOutExampleGen: reads a source in shards and assigns each image to a split."""

import json
import logging
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from google.protobuf import json_format, struct_pb2
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from components import sources
from components.example_gen.hold_out import SPLITS, UNUSED, hold_out
from components.example_gen.remote import local_copy
from components.examples import make_example
from components.sources.base import Source, UnreadableImage
from components.splits import ANOMALY_LABEL, identity, unreadable_message
from models.errors import UserError

# Images read by one worker at a time: the unit of parallelism and of memory.
SHARD_SIZE = 4096
_UNREADABLE = "unreadable"


class Shard(NamedTuple):
    """A run of a source's images and where each of them goes."""

    part: str
    start: int
    labels: np.ndarray
    splits: np.ndarray


class ReadShard(beam.DoFn):
    """Reads a shard's images and gives each as an Example, tagged with its split."""

    def __init__(self, source: Source, anomaly: tuple[int, ...]):
        self._source = source
        self._anomaly = anomaly

    def process(self, shard: Shard) -> Iterator[beam.pvalue.TaggedOutput]:
        """Skips images without a split; names those that cannot be decoded."""
        names = self._source.class_names
        normal = [name for index, name in enumerate(names) if index not in self._anomaly]
        stop = shard.start + len(shard.labels)
        images = self._source.read(shard.part, shard.start, stop)
        for offset, image in enumerate(images):
            if shard.splits[offset] == UNUSED:
                continue
            if isinstance(image, UnreadableImage):
                yield beam.pvalue.TaggedOutput(_UNREADABLE, f"{image.path}: {image.reason}")
                continue
            text = names[shard.labels[offset]]
            is_normal = text in normal
            example = make_example(
                image,
                label=normal.index(text) if is_normal else ANOMALY_LABEL,
                text=text,
                contrast=[text] if is_normal else normal,
                identity=identity(shard.part, shard.start + offset),
            )
            yield beam.pvalue.TaggedOutput(SPLITS[shard.splits[offset]], example)


class Executor(BaseExampleGenExecutor):
    """Writes the four splits of the hold-out protocol.

    The custom config holds: `source`, `data_dir` and `source_options`, as for `sources.get`, but
    that `data_dir` may be a URI; `anomaly`, class indices; `hold_out`, the keyword arguments of
    `hold_out.hold_out`; and `max_unreadable`, the number of images that may be skipped. `digest`,
    of the code, and `fingerprint`, of the data, are for the cache alone.
    """

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802
        """Not used: `GenerateExamplesByBeam` makes all splits in one pass."""
        raise NotImplementedError

    def GenerateExamplesByBeam(  # noqa: N802
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.pvalue.PCollection]:
        """Split -> Examples."""
        config = _config(exec_properties)
        source = sources.get(config["source"], self._data_dir, **config["source_options"])
        anomaly = tuple(map(int, config["anomaly"]))
        labels = source.labels()
        assignment = hold_out(
            labels, source.class_names, anomaly, **_whole_numbers(config["hold_out"])
        )
        shards = [
            Shard(part, start, values[start : start + SHARD_SIZE], splits[start:][:SHARD_SIZE])
            for part, values in labels.items()
            for splits in [assignment[part]]
            for start in range(0, len(values), SHARD_SIZE)
        ]
        outputs = (
            pipeline
            | "Shards" >> beam.Create(shards, reshuffle=True)
            | "Read" >> beam.ParDo(ReadShard(source, anomaly)).with_outputs(_UNREADABLE, *SPLITS)
        )
        _ = (
            outputs[_UNREADABLE]
            | "ListUnreadable" >> beam.combiners.ToList()
            | "WriteUnreadable" >> beam.Map(_write_json, self._unreadable_file)
        )
        return {split: outputs[split] for split in SPLITS}

    def Do(self, input_dict, output_dict, exec_properties) -> None:  # noqa: N802
        """Writes the splits.

        Raises:
            UserError: if more images than `max_unreadable` could not be decoded.
        """
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        self._unreadable_file = os.path.join(examples.uri, "unreadable.json")
        with local_copy(_config(exec_properties)["data_dir"]) as self._data_dir:
            super().Do(input_dict, output_dict, exec_properties)
        with fileio.open(self._unreadable_file) as file:
            unreadable = json.load(file)
        if not unreadable:
            return
        allowed = int(_config(exec_properties)["max_unreadable"])
        if len(unreadable) > allowed:
            raise UserError(unreadable_message(unreadable, allowed))
        logging.warning("Skipped %d images that cannot be decoded: %s", len(unreadable), unreadable)


def _config(exec_properties) -> dict[str, Any]:
    custom = example_gen_pb2.CustomConfig()
    json_format.Parse(exec_properties["custom_config"], custom)
    struct = struct_pb2.Struct()
    custom.custom_config.Unpack(struct)
    return json_format.MessageToDict(struct)


def _whole_numbers(settings) -> dict[str, Any]:
    """A Struct holds every number as a float: makes whole ones ints again."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in settings.items()
    }


def _write_json(values, path):
    with fileio.open(path, "w") as file:
        json.dump(sorted(values), file)
