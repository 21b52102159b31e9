"""What is measured of the outputs of a model, as TFMA metrics, and the reading of the measures."""

import abc
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.proto import config_pb2

from components.data.examples import CONTRAST
from models import metrics
from models.score_names import anomalousness

OVERALL = "overall"
AUROC, AUROC_LOW, AUROC_HIGH = "auroc", "auroc_low", "auroc_high"
AUPR, FPR_AT_95_TPR = "aupr", "fpr_at_95_tpr"
ACCURACY, ACCURACY_LOW, GUESSED = "balanced_accuracy", "balanced_accuracy_low", "guessed"
SPREAD = "spread"

Measures = dict[str, dict[str, dict[str, float]]]
"""`overall` or a normal class -> output of the model -> measure -> value."""


class RankingMetrics(tfma.metrics.Metric):
    """Exact auROC (Mann-Whitney, ties count half), auPR and FPR at 95 % TPR of one score.

    There are also the ends of the auROC's 95 % interval, see `models.metrics.auroc_interval`, and
    the difference of the largest and the smallest score.

    TFMA's own `AUC` is approximate, and wrong for scores outside [0, 1]. All scores of a slice are
    gathered on one worker.

    Args:
        name: not used, but TFMA needs this argument.
        digest: digest of the code, so that TFX's cache notices a change of the code.
    """

    def __init__(self, name: str = "ranking", digest: str = ""):
        super().__init__(_ranking_computations, name=name, digest=digest)


class ClassMetrics(tfma.metrics.Metric):
    """Balanced accuracy of class probabilities, see `models.metrics.balanced_accuracy`.

    Only normal images count. There are also the lower end of its 95 % interval, what guessing
    would reach, and the largest difference of a class's probability between any two images.

    Args:
        name: not used, but TFMA needs this argument.
        digest: digest of the code, so that TFX's cache notices a change of the code.
    """

    def __init__(self, name: str = "classes", digest: str = ""):
        super().__init__(_class_computations, name=name, digest=digest)


def load_measures(uri: str, model_name: str = tfma.constants.CANDIDATE_KEY) -> Measures:
    """Reads the measures that the Evaluator wrote into the folder `uri`.

    Args:
        uri: folder of the evaluation.
        model_name: TFMA's name of the candidate or the baseline. It has no effect if there is no
            baseline.
    """
    measured = {}
    found = tfma.load_eval_result(uri, model_name=model_name).slicing_metrics
    for slice_key, by_output in found or tfma.load_eval_result(uri).slicing_metrics:
        name = OVERALL if not slice_key else dict(slice_key)[CONTRAST]
        name = name.decode() if isinstance(name, bytes) else name
        measured[name] = {
            output: {
                measure: float(value.get("doubleValue", "nan"))  # NaN is given as text
                for measure, value in by_key[""].items()
                if not measure.endswith("_diff")
            }
            for output, by_key in by_output.items()
            if output
        }
    return measured


_Accumulator = list[tuple[int, tuple[float, ...]]]  # label and prediction of each image


class _Combiner(beam.CombineFn, abc.ABC):
    """Gathers labels and predictions of one output of one model."""

    MEASURES: tuple[str, ...]

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
        return []

    def add_input(
        self,
        accumulator: _Accumulator,
        element: metric_types.StandardMetricInputs,
    ) -> _Accumulator:
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
            flatten=False,
        ):
            accumulator.append((int(label.item()), tuple(prediction.reshape(-1).tolist())))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Accumulator]) -> _Accumulator:
        return [pair for accumulator in accumulators for pair in accumulator]

    def extract_output(self, accumulator: _Accumulator) -> dict[metric_types.MetricKey, float]:
        try:
            labels, predictions = map(np.array, zip(*accumulator, strict=True))
            measured = self.measure(labels, predictions)
        except ValueError:  # The slice has images of one kind only, or a score is not finite.
            measured = dict.fromkeys(self.MEASURES, float("nan"))
        return {
            _key(measure, self._model_name, self._output_name): value
            for measure, value in measured.items()
        }

    @abc.abstractmethod
    def measure(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Computes all `MEASURES` from labels (N,) and predictions (N, ...)."""


class _RankingCombiner(_Combiner):
    MEASURES = (AUROC, AUROC_LOW, AUROC_HIGH, AUPR, FPR_AT_95_TPR, SPREAD)

    def measure(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        scores, is_anomaly = predictions[:, 0].astype("float64"), labels.astype(bool)
        ranked = anomalousness(self._output_name, scores)
        low, high = metrics.auroc_interval(ranked, is_anomaly)
        return {
            AUROC: metrics.auroc(ranked, is_anomaly),
            AUROC_LOW: low,
            AUROC_HIGH: high,
            AUPR: metrics.aupr(ranked, is_anomaly),
            FPR_AT_95_TPR: metrics.fpr_at_tpr(ranked, is_anomaly),
            SPREAD: float(np.ptp(scores)),
        }


class _ClassCombiner(_Combiner):
    MEASURES = (ACCURACY, ACCURACY_LOW, GUESSED, SPREAD)

    def measure(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        normal = labels >= 0
        predicted = predictions[normal].argmax(axis=-1)
        accuracy, low = metrics.balanced_accuracy(labels[normal], predicted)
        return {
            ACCURACY: accuracy,
            ACCURACY_LOW: low,
            GUESSED: 1 / len(np.unique(labels[normal])),
            SPREAD: float(np.ptp(predictions, axis=0).max()),
        }


def _computations(
    combiner: type[_Combiner],
    eval_config: config_pb2.EvalConfig | None,
    model_names: Iterable[str] | None,
    output_names: Iterable[str] | None,
    example_weighted: bool,
) -> metric_types.MetricComputations:
    return [
        metric_types.MetricComputation(
            keys=[_key(measure, model, output) for measure in combiner.MEASURES],
            preprocessors=None,
            combiner=combiner(model, output, eval_config, example_weighted),
        )
        for model in model_names or [""]
        for output in output_names or [""]
    ]


# TFMA hands over what the arguments of these functions name.
def _ranking_computations(
    name: str = "ranking",
    digest: str = "",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Iterable[str] | None = None,
    output_names: Iterable[str] | None = None,
    example_weighted: bool = False,
) -> Any:
    return _computations(_RankingCombiner, eval_config, model_names, output_names, example_weighted)


def _class_computations(
    name: str = "classes",
    digest: str = "",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Iterable[str] | None = None,
    output_names: Iterable[str] | None = None,
    example_weighted: bool = False,
) -> Any:
    return _computations(_ClassCombiner, eval_config, model_names, output_names, example_weighted)


def _key(measure: str, model: str, output: str) -> metric_types.MetricKey:
    # The thresholds of an EvalConfig are looked up without `example_weighted`.
    return metric_types.MetricKey(
        name=measure, model_name=model, output_name=output, example_weighted=None
    )
