"""The BatchScorer component, which scores unlabelled images with a blessed model."""

import logging

import apache_beam as beam
from tfx.components.util.model_utils import is_model_blessed
from tfx.dsl.component.experimental.annotations import (
    BeamComponentParameter,
    InputArtifact,
    OutputArtifact,
    Parameter,
)
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.serving.batch.pipeline import score_all


@component(use_beam=True)
def BatchScorer(  # noqa: N802
    model: InputArtifact[standard_artifacts.Model],
    blessing: InputArtifact[standard_artifacts.ModelBlessing],
    scores: OutputArtifact[standard_artifacts.InferenceResult],
    images: Parameter[str],
    max_pixels: Parameter[int],
    fingerprint: Parameter[str],
    digest: Parameter[str],
    pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Fills `scores` with `score_all`. If the model is not blessed, `scores` stays empty.

    The stock BulkInferrer would stop at the first image that cannot be decoded, and it would write
    each image and its reconstruction in addition to the scores.

    Args:
        model: model that computes the scores.
        blessing: blessing of the model by the Evaluator.
        scores: artifact that is filled.
        images: resolved input, see `components.serving.batch.inputs`.
        max_pixels: largest number of pixels of an image.
        fingerprint: digest of the input, for TFX's cache.
        digest: digest of the code, for TFX's cache.
        pipeline: Beam pipeline, which TFX gives.
    """
    del fingerprint, digest
    if not is_model_blessed(blessing):
        logging.info("The model is not blessed, so it scores nothing.")
        return
    model_dir = path_utils.serving_model_path(model.uri)
    counts = score_all(pipeline, model_dir, [images], scores.uri, max_pixels=max_pixels)
    logging.info("%d images were scored, and %d could not be scored.", counts.scored, counts.dead)
