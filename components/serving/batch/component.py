"""The BatchScorer component: scores unlabelled images with a blessed model."""

import logging

import apache_beam as beam
from tfx import v1 as tfx
from tfx.components.util.model_utils import is_model_blessed
from tfx.utils import path_utils

from components.serving.batch.pipeline import score_all


@tfx.dsl.components.component(use_beam=True)
def BatchScorer(  # noqa: N802
    model: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.Model],
    blessing: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ModelBlessing],
    scores: tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.InferenceResult],
    images: tfx.dsl.components.Parameter[str],
    fingerprint: tfx.dsl.components.Parameter[str],
    digest: tfx.dsl.components.Parameter[str],
    pipeline: tfx.dsl.components.BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Fills `scores` as `pipeline.score_all` does, or leaves it empty without a blessing.

    The stock BulkInferrer would end at the first image that cannot be decoded, and write each
    image and its reconstruction beside the scores.

    Args:
        model: the model that scores.
        blessing: the Evaluator's blessing of the model.
        scores: the artifact that is filled.
        images: resolved input, see `inputs`.
        fingerprint: digest of the input, for TFX's cache.
        digest: digest of the code, for TFX's cache.
        pipeline: Beam pipeline, which TFX gives.
    """
    del fingerprint, digest
    if not is_model_blessed(blessing):
        logging.info("The model is not blessed, so it scores nothing.")
        return
    counts = score_all(pipeline, path_utils.serving_model_path(model.uri), [images], scores.uri)
    logging.info("%d images scored, %d could not be.", counts.scored, counts.dead)
