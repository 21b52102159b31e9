"""Executor of HoldOutExampleGen: reads a source in shards and assigns each image to a split."""

import json
import logging
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
from google.protobuf import json_format, struct_pb2
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples

from components.data import sources
from components.data.examples import UNREADABLE_FILE, make_example
from components.data.index import HeldOut
from components.data.pixels import UnreadableImage
from components.data.protocol import SPLITS, UNUSED, Classes, hold_out
from components.data.remote import local_copy
from components.data.sources.base import Source
from components.data.splits import check_unreadable, identity
from models.errors import UserError

# Images read by one worker at a time: the unit of parallelism and of memory.
SHARD_SIZE = 512
_UNREADABLE = "unreadable"
RECORDS = "data_tfrecord"  # as TFX calls them
FILE_FORMAT = "tfrecords_gzip"


class Shard(NamedTuple):
    """A run of a source's images, with the class, split, digest and file's name of each."""

    part: str
    start: int
    classes: np.ndarray
    splits: np.ndarray
    digests: np.ndarray
    names: np.ndarray


class ReadShard(beam.DoFn):
    """Reads a shard's images and gives each as an Example, tagged with its split."""

    def __init__(self, source: Source, classes: Classes, image_size: tuple[int, int]):
        self._source = source
        self._classes = classes
        self._image_size = image_size

    def process(self, shard: Shard) -> Iterator[beam.pvalue.TaggedOutput]:
        """Skips images without a split; names those that cannot be decoded."""
        labels = self._classes.labels(shard.classes)
        stop = shard.start + len(labels)
        images = self._source.read(shard.part, shard.start, stop, self._image_size)
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
                identity=identity(shard.part, shard.start + offset, str(shard.names[offset])),
                digest=shard.digests[offset].tobytes().hex(),
                mask=self._mask(shard.part, shard.start + offset),
            )
            yield beam.pvalue.TaggedOutput(SPLITS[shard.splits[offset]], example)

    def _mask(self, part: str, place: int) -> np.ndarray | None:
        """The mask of an image, resized as the image is."""
        mask = self._source.mask(part, place)
        if mask is None:
            return None
        from models.images import resize_images  # Keras takes seconds to load.

        resized = resize_images(mask[..., None] * np.uint8(255), self._image_size)
        return np.asarray(resized)[..., 0] > 127


class Executor(BaseBeamExecutor):
    """Writes the four splits of the hold-out protocol.

    The custom config holds `source`, `data_dir` and `source_options`, as for `sources.get`, but
    `data_dir` may be a URI; `image_size`, to which images are resized; `anomaly`, the indices of
    the anomalous classes; `held_out`, the path of a saved `HeldOut`, or nothing where the
    launching machine's files are not seen; `hold_out`, the keyword arguments of
    `protocol.hold_out`, which assigns the images in the same way; `fingerprint`, of the index;
    `max_unreadable`, the number of images that may be unreadable; and `unreadable`, the number of
    those that the plan has found. The `digest` of the code is only for the cache.
    """

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:  # noqa: N802
        """Writes the splits, each worker what it reads.

        TFX's own `Do` shuffles the Examples before it writes them, for which Beam's runner in
        this process holds them all in memory. `examples.load_split` sorts them anyway.

        Raises:
            UserError: if more images than `max_unreadable` could not be decoded.
        """
        config = _config(exec_properties)
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        with local_copy(config["data_dir"]) as data_dir, self._make_beam_pipeline() as pipeline:
            self._write(pipeline, config, data_dir, examples)
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(examples, FILE_FORMAT)
        with fileio.open(os.path.join(examples.uri, UNREADABLE_FILE)) as file:
            unreadable = json.load(file)
        check_unreadable(unreadable, int(config["max_unreadable"]), int(config["unreadable"]))
        if unreadable:
            logging.warning(
                "Skipped %d images that cannot be decoded: %s", len(unreadable), unreadable
            )

    def _write(
        self,
        pipeline: beam.Pipeline,
        config: dict[str, Any],
        data_dir: str | None,
        examples: Examples,
    ) -> None:
        """Adds to the pipeline what reads the source and writes the splits."""
        options = _whole_numbers(config["source_options"])
        source = sources.get(config["source"], data_dir, **options)
        held_out = _held_out(config, source)
        classes = Classes(held_out.index.class_names, tuple(map(int, config["anomaly"])))
        height, width = map(int, config["image_size"])
        shards = [
            Shard(
                name,
                start,
                *(values[start:][:SHARD_SIZE] for values in columns),
            )
            for name, part in held_out.index.parts.items()
            for columns in [(part.labels, held_out.splits[name], part.digests, part.names)]
            for start in range(0, len(part.labels), SHARD_SIZE)
        ]
        reader = ReadShard(source, classes, (height, width))
        outputs = (
            pipeline
            | "Shards" >> beam.Create(shards, reshuffle=True)
            | "Read" >> beam.ParDo(reader).with_outputs(_UNREADABLE, *SPLITS)
        )
        _ = (
            outputs[_UNREADABLE]
            | "ListUnreadable" >> beam.combiners.ToList()
            | "WriteUnreadable"
            >> beam.Map(_write_json, os.path.join(examples.uri, UNREADABLE_FILE))
        )
        for split in SPLITS:
            file = os.path.join(artifact_utils.get_split_uri([examples], split), RECORDS)
            _ = outputs[split] | f"Write {split}" >> beam.io.WriteToTFRecord(
                file, beam.coders.ProtoCoder(tf.train.Example), file_name_suffix=".gz"
            )


def _held_out(config: dict[str, Any], source: Source) -> HeldOut:
    """The plan's assignment, or where it cannot be seen the same one, made anew."""
    if config["held_out"]:
        held_out = HeldOut.load(config["held_out"])
        source.adopt(held_out.index)
        return held_out
    index = source.index()
    if index.fingerprint != config["fingerprint"]:
        raise UserError(
            f"The data in {source.folder} is not the data that this run was planned with: plan it "
            "again where the same files are seen."
        )
    anomaly = tuple(map(int, config["anomaly"]))
    return hold_out(index, anomaly, **_whole_numbers(config["hold_out"]))


def _config(exec_properties: dict[str, Any]) -> dict[str, Any]:
    custom = example_gen_pb2.CustomConfig()
    json_format.Parse(exec_properties["custom_config"], custom)
    struct = struct_pb2.Struct()
    custom.custom_config.Unpack(struct)
    return json_format.MessageToDict(struct)


def _whole_numbers(settings: dict[str, Any]) -> dict[str, Any]:
    """Makes whole numbers ints again, because a Struct holds every number as a float."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in settings.items()
    }


def _write_json(values, path):
    with fileio.open(path, "w") as file:
        json.dump(sorted(values), file)
