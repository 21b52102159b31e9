"""Scores as TFRecords or Parquet."""

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf

FORMATS = ("tfrecord", "parquet")


def write_scores(prefix: str, output_format: str, ranks: dict[str, int]) -> beam.PTransform:
    """Writes records, `id` and outputs, as sharded files.

    Args:
        prefix: of the files' paths.
        output_format: one of `FORMATS`.
        ranks: name -> rank of each output: 1, a number an image, or 2, a list.
    """
    if output_format == "tfrecord":
        return "Examples" >> beam.Map(to_example) | beam.io.WriteToTFRecord(
            prefix, beam.coders.ProtoCoder(tf.train.Example), file_name_suffix=".tfrecord.gz"
        )
    number = pa.float32()
    fields = {name: number if rank == 1 else pa.list_(number) for name, rank in ranks.items()}
    return beam.io.WriteToParquet(
        prefix,
        pa.schema({"id": pa.string(), **fields}),
        codec="snappy",
        file_name_suffix=".parquet",
    )


def to_example(record: dict[str, object]) -> tf.train.Example:
    """A record as tf.Example: `id` as bytes, each output as floats."""
    example = tf.train.Example()
    for name, value in record.items():
        feature = example.features.feature[name]
        if name == "id":
            feature.bytes_list.value.append(value.encode())
        else:
            feature.float_list.value.extend(value if isinstance(value, list) else [value])
    return example
