"""Scores as TFRecords or Parquet."""

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf

FORMATS = ("tfrecord", "parquet")


def write_scores(prefix: str, output_format: str, kinds: dict[str, str]) -> beam.PTransform:
    """Writes records, `id` and outputs, as sharded files.

    Args:
        prefix: of the files' paths.
        output_format: one of `FORMATS`.
        kinds: name -> what an image has of each output: a `text`, a `number` or `numbers`.
    """
    if output_format == "tfrecord":
        return "Examples" >> beam.Map(to_example) | beam.io.WriteToTFRecord(
            prefix, beam.coders.ProtoCoder(tf.train.Example), file_name_suffix=".tfrecord.gz"
        )
    types = {"text": pa.string(), "number": pa.float32(), "numbers": pa.list_(pa.float32())}
    return beam.io.WriteToParquet(
        prefix,
        pa.schema({"id": pa.string(), **{name: types[kind] for name, kind in kinds.items()}}),
        codec="snappy",
        file_name_suffix=".parquet",
    )


def to_example(record: dict[str, object]) -> tf.train.Example:
    """A record as tf.Example: texts as bytes, numbers as floats."""
    example = tf.train.Example()
    for name, value in record.items():
        feature = example.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        else:
            feature.float_list.value.extend(value if isinstance(value, list) else [value])
    return example
