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

from components.data import sources
from components.data.examples import make_example
from components.data.protocol import SPLITS, UNUSED, Assignment, Classes, hold_out
from components.data.remote import local_copy
from components.data.sources.base import Source, UnreadableImage
from components.data.splits import identity, too_many_unreadable

# Images read by one worker at a time: the unit of parallelism and of memory.
SHARD_SIZE = 4096
_UNREADABLE = "unreadable"


class Shard(NamedTuple):
    """A run of a source's images, with the class and the split of each."""

    part: str
    start: int
    classes: np.ndarray
    splits: np.ndarray


class ReadShard(beam.DoFn):
    """Reads a shard's images and gives each as an Example, tagged with its split."""

    def __init__(self, source: Source, classes: Classes):
        self._source = source
        self._classes = classes

    def process(self, shard: Shard) -> Iterator[beam.pvalue.TaggedOutput]:
        """Skips images without a split; names those that cannot be decoded."""
        labels = self._classes.labels(shard.classes)
        images = self._source.read(shard.part, shard.start, shard.start + len(labels))
        for offset, image in enumerate(images):
            if shard.splits[offset] == UNUSED:
                continue
            if isinstance(image, UnreadableImage):
                yield beam.pvalue.TaggedOutput(_UNREADABLE, f"{image.path}: {image.reason}")
                continue
            example = make_example(
                image,
                label=int(labels[offset]),
                text=self._classes.names[shard.classes[offset]],
                normal_classes=self._classes.normal_names,
                identity=identity(shard.part, shard.start + offset),
            )
            yield beam.pvalue.TaggedOutput(SPLITS[shard.splits[offset]], example)


class Executor(BaseExampleGenExecutor):
    """Writes the four splits of the hold-out protocol.

    The custom config holds `source`, `data_dir` and `source_options`, as for `sources.get`, but
    `data_dir` may be a URI; `anomaly`, the indices of the anomalous classes; `assignment`, the
    path of an `Assignment`, or nothing where the launching machine's files are not seen;
    `hold_out`, the keyword arguments of `protocol.hold_out`, which makes the same assignment; and
    `max_unreadable`, the number of images that may be skipped. The digest of the code (`digest`)
    and that of the data (`fingerprint`) are only for the cache.
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
        classes = Classes(source.class_names, tuple(map(int, config["anomaly"])))
        assignment = _assignment(config, source, classes)
        shards = [
            Shard(part, start, values[start:][:SHARD_SIZE], splits[start:][:SHARD_SIZE])
            for part, values in assignment.labels.items()
            for splits in [assignment.splits[part]]
            for start in range(0, len(values), SHARD_SIZE)
        ]
        outputs = (
            pipeline
            | "Shards" >> beam.Create(shards, reshuffle=True)
            | "Read" >> beam.ParDo(ReadShard(source, classes)).with_outputs(_UNREADABLE, *SPLITS)
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
            raise too_many_unreadable(unreadable, allowed)
        logging.warning("Skipped %d images that cannot be decoded: %s", len(unreadable), unreadable)


def _assignment(config, source, classes) -> Assignment:
    if config["assignment"]:
        return Assignment.load(config["assignment"])
    labels, protocol = source.labels(), _whole_numbers(config["hold_out"])
    return Assignment(labels, hold_out(labels, classes.names, classes.anomaly, **protocol))


def _config(exec_properties) -> dict[str, Any]:
    custom = example_gen_pb2.CustomConfig()
    json_format.Parse(exec_properties["custom_config"], custom)
    struct = struct_pb2.Struct()
    custom.custom_config.Unpack(struct)
    return json_format.MessageToDict(struct)


def _whole_numbers(settings) -> dict[str, Any]:
    """Makes whole numbers ints again, because a Struct holds every number as a float."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in settings.items()
    }


def _write_json(values, path):
    with fileio.open(path, "w") as file:
        json.dump(sorted(values), file)
