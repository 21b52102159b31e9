"""Exact measures that need no threshold, as a TFMA metric."""

from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.proto import config_pb2

from models import metrics
from models.scores import anomalousness

AUROC = "auroc"
AUPR = "aupr"
FPR_AT_95_TPR = "fpr_at_95_tpr"


class RankingMetrics(tfma.metrics.Metric):
    """Exact auROC (Mann-Whitney, ties count half), auPR and FPR at 95 % TPR of one score.

    TFMA's own `AUC` is approximate, and wrong for scores outside [0, 1]. All scores of a slice are
    gathered on one worker.

    Args:
        name: not used, but TFMA needs this argument.
        digest: digest of the code, so that TFX's cache notices a change of the code.
    """

    def __init__(self, name: str = "ranking", digest: str = ""):
        super().__init__(_computations, name=name, digest=digest)


def _computations(
    name: str = "ranking",
    digest: str = "",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Iterable[str] | None = None,
    output_names: Iterable[str] | None = None,
    example_weighted: bool = False,
) -> metric_types.MetricComputations:
    return [
        metric_types.MetricComputation(
            keys=[_key(measure, model, output) for measure in (AUROC, AUPR, FPR_AT_95_TPR)],
            preprocessors=None,
            combiner=_RankingCombiner(model, output, eval_config, example_weighted),
        )
        for model in model_names or [""]
        for output in output_names or [""]
    ]


def _key(measure: str, model: str, output: str) -> metric_types.MetricKey:
    # The thresholds of an EvalConfig are looked up without `example_weighted`.
    return metric_types.MetricKey(
        name=measure, model_name=model, output_name=output, example_weighted=None
    )


_Accumulator = tuple[list[float], list[bool]]  # scores, is_anomaly


class _RankingCombiner(beam.CombineFn):
    """Gathers all scores, and computes the measures at the end."""

    def __init__(
        self,
        model_name: str,
        output_name: str,
        eval_config: config_pb2.EvalConfig | None,
        example_weighted: bool,
    ):
        self._model_name = model_name
        self._output_name = output_name
        self._eval_config = eval_config
        self._example_weighted = example_weighted

    def create_accumulator(self) -> _Accumulator:
        return [], []

    def add_input(
        self, accumulator: _Accumulator, element: metric_types.StandardMetricInputs
    ) -> _Accumulator:
        scores, is_anomaly = accumulator
        outputs = element.predictions
        if isinstance(outputs, dict):
            outputs = outputs.get(self._model_name, outputs)
        if isinstance(outputs, dict) and self._output_name not in outputs:
            return accumulator  # The last blessed model may have had another detector.
        for label, prediction, _ in metric_util.to_label_prediction_example_weight(
            element,
            eval_config=self._eval_config,
            model_name=self._model_name,
            output_name=self._output_name,
            example_weighted=self._example_weighted,
        ):
            scores.append(float(prediction.item()))
            is_anomaly.append(bool(label.item()))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Accumulator]) -> _Accumulator:
        merged = self.create_accumulator()
        for scores, is_anomaly in accumulators:
            merged[0].extend(scores)
            merged[1].extend(is_anomaly)
        return merged

    def extract_output(self, accumulator: _Accumulator) -> dict[metric_types.MetricKey, float]:
        scores, is_anomaly = np.array(accumulator[0]), np.array(accumulator[1], bool)
        try:
            ranked = anomalousness(self._output_name, scores)
            measured = {
                AUROC: metrics.auroc(ranked, is_anomaly),
                AUPR: metrics.aupr(ranked, is_anomaly),
                FPR_AT_95_TPR: metrics.fpr_at_tpr(ranked, is_anomaly),
            }
        except ValueError:  # The slice has images of one kind only, or a score is not finite.
            measured = dict.fromkeys((AUROC, AUPR, FPR_AT_95_TPR), float("nan"))
        return {
            _key(measure, self._model_name, self._output_name): value
            for measure, value in measured.items()
        }
