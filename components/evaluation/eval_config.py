"""The configuration of the Evaluator, with what is measured of which images."""

from collections.abc import Sequence

from tensorflow_model_analysis.proto import config_pb2

from components.data.examples import CONTRAST, IS_ANOMALY, LABEL
from components.evaluation.metrics import ClassMetrics, RankingMetrics

CLASSES = "class_probabilities"


def eval_config(scores: Sequence[str], digest: str) -> config_pb2.EvalConfig:
    """Makes a configuration that measures each score overall and for each normal class.

    The measures of a normal class compare its images with the anomalies. There are no thresholds,
    because what a model must reach is decided in `components.evaluation.verdict`.

    Args:
        scores: names of the model's scores.
        digest: digest of the code.
    """
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name="serving_default",
                label_keys={**dict.fromkeys(scores, IS_ANOMALY), CLASSES: LABEL},
                model_type="tf_generic",
            )
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[CONTRAST])],
        metrics_specs=[
            _measured([*scores], RankingMetrics, digest),
            _measured([CLASSES], ClassMetrics, digest),
        ],
    )


def _measured(outputs: list[str], metric: type, digest: str) -> config_pb2.MetricsSpec:
    return config_pb2.MetricsSpec(
        output_names=outputs,
        metrics=[
            config_pb2.MetricConfig(
                class_name=metric.__name__,
                module=metric.__module__,
                config=f'"digest": "{digest}"',
            )
        ],
    )
