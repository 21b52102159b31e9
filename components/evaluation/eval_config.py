"""The configuration of the Evaluator, with its scores, slices and gates."""

from collections.abc import Sequence

from tensorflow_model_analysis.proto import config_pb2

from components.data.examples import CONTRAST, IS_ANOMALY
from components.evaluation.metrics import AUROC, RankingMetrics
from models.scores import ANOMALY_SCORE


def eval_config(
    scores: Sequence[str], min_auroc: float, max_auroc_drop: float, digest: str
) -> config_pb2.EvalConfig:
    """Makes a configuration that measures each score overall and for each normal class.

    The measures of a normal class compare its images with the anomalies. A model is blessed if the
    overall auROC of `anomaly_score` is at least `min_auroc`. If there is an earlier blessed model,
    the auROC may also be at most `max_auroc_drop` below that of the earlier model.

    Args:
        scores: names of the model's scores.
        min_auroc: smallest auROC of a blessed model, in [0, 1].
        max_auroc_drop: largest loss of auROC against the earlier blessed model, in [0, 1].
        digest: digest of the code.
    """
    metric = config_pb2.MetricConfig(
        class_name=RankingMetrics.__name__,
        module=RankingMetrics.__module__,
        config=f'"digest": "{digest}"',
    )
    gate = config_pb2.PerSliceMetricThreshold(
        # The empty specification stands for all images. There is no gate for slices, because they
        # may be small or have images of one kind only.
        slicing_specs=[config_pb2.SlicingSpec()],
        threshold=config_pb2.MetricThreshold(
            value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": min_auroc}),
            change_threshold=config_pb2.GenericChangeThreshold(
                direction=config_pb2.MetricDirection.HIGHER_IS_BETTER,
                absolute={"value": -max_auroc_drop},
            ),
        ),
    )
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name="serving_default", label_key=IS_ANOMALY, model_type="tf_generic"
            )
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[CONTRAST])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                output_names=[score],
                metrics=[metric],
                per_slice_thresholds={AUROC: config_pb2.PerSliceMetricThresholds(thresholds=[gate])}
                if score == ANOMALY_SCORE
                else {},
            )
            for score in scores
        ],
    )
