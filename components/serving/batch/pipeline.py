"""Scores images with a SavedModel in one Beam pipeline."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
import tensorflow as tf
from apache_beam.metrics import Metrics

from components.data.formats import MAX_PIXELS
from components.serving import storage
from components.serving.batch.inputs import absolute, resolve
from components.serving.batch.reading import DEAD, LEFT_OUT, FindShards, ReadShard
from components.serving.batch.scoring import ScoreBatch
from components.serving.batch.writing import FORMATS, write_scores
from components.serving.runner import Kind, output_kinds
from models.errors import UserError

DEAD_LETTERS = "dead-letters.jsonl"
MAX_DEAD = 0.5


@dataclass(frozen=True)
class Counts:
    """Numbers of records."""

    scored: int
    """Number of records that were scored."""
    dead: int
    """Number of records that could not be read or decoded, which are called dead letters."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Outcome -> number of files that were left out of folders, see `components.data.folder`."""


def score_all(
    pipeline: beam.Pipeline,
    model_dir: str,
    inputs: Sequence[str],
    output: str,
    *,
    output_format: str = FORMATS[0],
    batch_size: int = 100,
    max_dead: float = MAX_DEAD,
    max_pixels: int = MAX_PIXELS,
) -> Counts:
    """Scores all images of `inputs` and writes the folder `output`, which appears only when done.

    The folder has three parts:

    * The folder `scores` has the `id` of each image and all outputs of the signature
      `score_images`, in any order.
    * `dead-letters.jsonl` has `id` and `reason` of each record that could not be scored.
    * `counts.json` has the numbers of both, and those of files that were left out of folders.

    Each worker thread has only one batch of images in memory. Only the list of file names grows
    with the input.

    Args:
        pipeline: an empty Beam pipeline, whose workers see the same files under the same paths.
        model_dir: folder of a SavedModel that `components.serving.export` has written.
        inputs: folders, images, manifests, TFRecords or globs, see `inputs.shards`.
        output: folder that does not exist or is empty.
        output_format: `tfrecord` (gzipped) or `parquet`.
        batch_size: number of images that are scored at a time.
        max_dead: largest share of records that may be dead letters, in [0, 1].
        max_pixels: largest number of pixels of an image; a larger one is a dead letter.

    Raises:
        UserError: if the model or an input is missing, if `output` is not empty, if there is
            nothing to score, or if too many records are dead letters. Then only these are kept,
            beside `output`.
    """
    model_dir, output = absolute(model_dir), absolute(output)
    kinds = output_kinds(model_dir)
    paths = [resolve(name) for name in inputs]
    if tf.io.gfile.exists(output) and (
        not tf.io.gfile.isdir(output) or tf.io.gfile.listdir(output)
    ):
        raise UserError(
            f"The output {output} exists and is not an empty folder: give another one or remove it."
        )
    with storage.incoming(storage.own_name(output)) as folder:
        tf.io.gfile.makedirs(folder)
        with pipeline:
            _build(pipeline, model_dir, paths, folder, output_format, batch_size, kinds, max_pixels)
        with tf.io.gfile.GFile(f"{folder}/counts.json") as file:
            found = json.load(file)
        left_out = {name: found[name] for name in sorted(found) if name not in ("scored", "dead")}
        counts = Counts(found.get("scored", 0), found.get("dead", 0), left_out)
        if not counts.scored and not counts.dead:
            raise UserError(f"There are no images in {', '.join(inputs)}.")
        _check_dead(counts, max_dead, folder, output)
        storage.publish(folder, output)
    return counts


def _check_dead(counts: Counts, max_dead: float, folder: str, output: str) -> None:
    total = counts.scored + counts.dead
    if counts.dead <= max_dead * total:
        return
    kept = f"{output}-dead-letters.jsonl"
    tf.io.gfile.copy(f"{folder}/{DEAD_LETTERS}", kept, overwrite=True)
    raise UserError(
        f"{counts.dead} of {total} images could not be scored, which is more than {max_dead:.0%}: "
        f"{kept} has the reasons, and nothing else was written.",
        "max_dead",
    )


def _build(
    pipeline: beam.Pipeline,
    model_dir: str,
    paths: list[str],
    folder: str,
    output_format: str,
    batch_size: int,
    kinds: dict[str, Kind],
    max_pixels: int,
) -> None:
    found = (
        pipeline
        | beam.Create(paths)
        | beam.ParDo(FindShards()).with_outputs(DEAD, LEFT_OUT, main="main")
    )
    # Only names are shuffled. Reading, scoring and writing form one stage, which has only one batch
    # in memory.
    images = (
        found.main
        | beam.Reshuffle()
        | beam.ParDo(ReadShard(max_pixels)).with_outputs(DEAD, main="main")
    )
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
        | "DeadLetters" >> beam.io.WriteToText(f"{folder}/{DEAD_LETTERS}", shard_name_template="")
    )
    _ = (
        (
            scores.main | "Scored" >> beam.Map(_counted, "scored"),
            dead | "Dead" >> beam.Map(_counted, "dead"),
            found[LEFT_OUT],
        )
        | "All" >> beam.Flatten()
        | beam.CombinePerKey(sum)
        | beam.combiners.ToDict()
        | "Counts" >> beam.Map(_write_json, f"{folder}/counts.json")
    )


def _counted(_, kind):
    """Counts a record for the display of the runner, and returns kind and 1 for `counts.json`.

    If a bundle is tried again, the display counts its records twice, but `counts.json` does not.
    """
    Metrics.counter("batch_scoring", kind).inc()
    return kind, 1


def _write_json(values, path):
    with tf.io.gfile.GFile(path, "w") as file:
        json.dump(values, file)
