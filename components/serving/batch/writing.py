"""Writes scores as TFRecords or Parquet."""

from collections.abc import Mapping

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf

from components.serving.runner import Kind

FORMATS = ("tfrecord", "parquet")


def write_scores(prefix: str, output_format: str, kinds: Mapping[str, Kind]) -> beam.PTransform:
    """Makes a transform that writes records with `id` and outputs into sharded files.

    Args:
        prefix: beginning of the paths of the files.
        output_format: one of `FORMATS`.
        kinds: name of each output -> its kind for one image.
    """
    if output_format == "tfrecord":
        return "Examples" >> beam.Map(to_example) | beam.io.WriteToTFRecord(
            prefix, beam.coders.ProtoCoder(tf.train.Example), file_name_suffix=".tfrecord.gz"
        )
    types = {
        "text": pa.string(),
        "flag": pa.bool_(),
        "number": pa.float32(),
        "numbers": pa.list_(pa.float32()),
    }
    return beam.io.WriteToParquet(
        prefix,
        pa.schema({"id": pa.string(), **{name: types[kind] for name, kind in kinds.items()}}),
        codec="snappy",
        file_name_suffix=".parquet",
    )


def to_example(record: dict[str, object]) -> tf.train.Example:
    """Turns a record into a tf.Example: texts as bytes, flags as 0 or 1, numbers as floats."""
    example = tf.train.Example()
    for name, value in record.items():
        feature = example.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        elif isinstance(value, bool):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.extend(value if isinstance(value, list) else [value])
    return example
