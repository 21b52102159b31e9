"""Batch scoring: `capsad score ... --beam`."""

import logging
import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.beam_args import beam_args as with_defaults
from models.errors import UserError
from pipeline import console
from pipeline.run import RunFailed

if TYPE_CHECKING:
    from components.batch_scoring.score import Counts


def score_by_beam(
    model: str,
    inputs: Sequence[str],
    output: str,
    output_format: str = "tfrecord",
    beam_args: Sequence[str] = (),
) -> "Counts":
    """Scores `inputs` with the SavedModel `model` into the folder `output`.

    Args:
        model: a run's output folder, its `serving` folder, or the folder of one version.
        inputs: see `components.batch_scoring.inputs`.
        output: folder that does not exist or is empty.
        output_format: `tfrecord` or `parquet`.
        beam_args: arguments of Beam, `--NAME=VALUE`.

    Raises:
        UserError: if the model or an input is missing, the output is not empty, there is nothing
            to score, or a Beam argument is not of that form.
        RunFailed: at any other error.
    """
    argv = with_defaults(beam_args)
    descriptor, log = tempfile.mkstemp(prefix="capsad-score-", suffix=".log")
    os.close(descriptor)
    failed = False
    try:
        with console.noise_to(log):
            # Imported here, for Beam and TensorFlow take seconds.
            import apache_beam as beam

            from components.batch_scoring.score import score
            from components.scoring.saved_model import newest_version

            model = newest_version(model)
            pipeline = beam.Pipeline(argv=argv)
            try:
                return score(pipeline, model, inputs, output, output_format=output_format)
            except UserError:
                raise
            except Exception as error:
                failed = True
                logging.exception("Scoring failed.")
                reason = str(error).strip().partition("\n")[0]
                raise RunFailed(
                    f"Scoring failed: {type(error).__name__}: {reason}. See {log}"
                ) from error
    finally:
        if not failed:
            os.remove(log)
