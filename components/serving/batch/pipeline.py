"""Scores images with a SavedModel in one Beam pipeline."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam
import tensorflow as tf
from apache_beam.metrics import Metrics

from components.serving import storage
from components.serving.batch.inputs import absolute, resolve
from components.serving.batch.reading import DEAD, FindShards, ReadShard
from components.serving.batch.scoring import ScoreBatch
from components.serving.batch.writing import FORMATS, write_scores
from components.serving.runner import output_kinds
from models.errors import UserError


@dataclass(frozen=True)
class Counts:
    """What became of the records."""

    scored: int
    dead: int
    """Records that could not be read or decoded: the dead letters."""


def score_all(
    pipeline: beam.Pipeline,
    model_dir: str,
    inputs: Sequence[str],
    output: str,
    *,
    output_format: str = FORMATS[0],
    batch_size: int = 100,
) -> Counts:
    """Scores all images of `inputs` and writes the folder `output`, which appears whole or not.

    In it are the folder `scores`, in no particular order: `id` and all outputs of the model but
    the reconstruction; `dead-letters.jsonl`: `id` and `reason` of each record that could not be
    scored; and `counts.json`. Images are in memory a batch at a time in each worker thread; what
    grows with the input is the list of its files' names.

    Args:
        pipeline: an empty Beam pipeline, whose workers see the same files under the same paths.
        model_dir: folder of a SavedModel by `components.serving.export`.
        inputs: folders, images, manifests, TFRecords or globs, see `inputs.shards`.
        output: a folder that does not exist or is empty.
        output_format: `tfrecord` (gzipped) or `parquet`.
        batch_size: images scored at once.

    Raises:
        UserError: if the model or an input is missing, `output` has something in it, or there is
            nothing to score.
    """
    model_dir, output = absolute(model_dir), absolute(output)
    # A reconstruction is larger than the image itself, so it is not kept.
    kinds = {
        name: kind for name, kind in output_kinds(model_dir).items() if name != "reconstruction"
    }
    paths = [resolve(name) for name in inputs]
    if tf.io.gfile.exists(output) and (
        not tf.io.gfile.isdir(output) or tf.io.gfile.listdir(output)
    ):
        raise UserError(
            f"The output {output} exists and is not an empty folder: name another or remove it."
        )
    with storage.incoming(f"{output}.{uuid.uuid4().hex[:8]}.incoming") as folder:
        tf.io.gfile.makedirs(folder)
        with pipeline:
            _build(pipeline, model_dir, paths, folder, output_format, batch_size, kinds)
        with tf.io.gfile.GFile(f"{folder}/counts.json") as file:
            counts = Counts(**{"scored": 0, "dead": 0, **json.load(file)})
        if counts == Counts(0, 0):
            raise UserError(f"There are no images in {', '.join(inputs)}.")
        storage.publish(folder, output)
    return counts


def _build(pipeline, model_dir, paths, folder, output_format, batch_size, kinds):
    found = pipeline | beam.Create(paths) | beam.ParDo(FindShards()).with_outputs(DEAD, main="main")
    # Names alone are shuffled; from reading to writing all is one stage, a batch at a time.
    images = found.main | beam.Reshuffle() | beam.ParDo(ReadShard()).with_outputs(DEAD, main="main")
    scores = (
        images.main
        | beam.BatchElements(min_batch_size=batch_size, max_batch_size=batch_size)
        | beam.ParDo(ScoreBatch(model_dir, tuple(kinds))).with_outputs(DEAD, main="main")
    )
    dead = (found[DEAD], images[DEAD], scores[DEAD]) | beam.Flatten()
    _ = scores.main | "Scores" >> write_scores(f"{folder}/scores/part", output_format, kinds)
    _ = (
        dead
        | "Json" >> beam.Map(json.dumps)
        | "DeadLetters"
        >> beam.io.WriteToText(f"{folder}/dead-letters.jsonl", shard_name_template="")
    )
    _ = (
        (
            scores.main | "Scored" >> beam.Map(_counted, "scored"),
            dead | "Dead" >> beam.Map(_counted, "dead"),
        )
        | "Both" >> beam.Flatten()
        | beam.combiners.Count.PerElement()
        | beam.combiners.ToDict()
        | "Counts" >> beam.Map(_write_json, f"{folder}/counts.json")
    )


def _counted(_, kind):
    """For the runner's display; a retried bundle counts twice there, but not in counts.json."""
    Metrics.counter("batch_scoring", kind).inc()
    return kind


def _write_json(values, path):
    with tf.io.gfile.GFile(path, "w") as file:
        json.dump(values, file)
