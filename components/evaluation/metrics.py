"""What is measured of the outputs of a model, as TFMA metrics, and the reading of the measures."""

import abc
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types

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


class _Gathered:
    """Labels and predictions of images, row by row in one array, which takes little memory.

    Args:
        outputs: number of outputs.
    """

    def __init__(self, outputs: int):
        self.widths = (0,) * outputs
        """Number of values of each output. It is 0 for an output that the model does not have."""
        self.values = array("d")
        """For each image its label, and then the values of all outputs."""

    def add(self, label: int, predictions: Iterable[np.ndarray | None]) -> None:
        """Adds an image."""
        parts = [[] if part is None else np.ravel(part).tolist() for part in predictions]
        self.widths = tuple(map(len, parts))
        self.values.append(label)
        for part in parts:
            self.values.extend(part)

    def join(self, other: "_Gathered") -> None:
        """Adds the images of another one."""
        if any(other.widths):
            self.widths = other.widths
        self.values.extend(other.values)

    def columns(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The labels, int (N,), and the values of each output, float64 (N, width)."""
        table = np.array(self.values).reshape(-1, 1 + sum(self.widths))
        ends = np.cumsum([1, *self.widths])
        return table[:, 0].astype(int), np.split(table, ends, axis=1)[1:-1]


class _Combiner(beam.CombineFn, abc.ABC):
    """Gathers labels and predictions of some outputs of one model.

    An image is in many slices. Therefore all outputs are gathered at once, and without TFMA's tools
    for weights, which take most of the time.
    """

    MEASURES: tuple[str, ...]

    def __init__(self, model_name: str, output_names: Sequence[str]):
        self._model_name = model_name
        self._output_names = output_names

    def create_accumulator(self) -> _Gathered:
        return _Gathered(len(self._output_names))

    def add_input(
        self, accumulator: _Gathered, element: metric_types.StandardMetricInputs
    ) -> _Gathered:
        outputs = self._of_model(element.predictions)
        label = _part(self._of_model(element.labels), self._output_names[0])
        accumulator.add(
            int(np.asarray(label).item()), (_part(outputs, name) for name in self._output_names)
        )
        return accumulator

    def _of_model(self, values: Any) -> Any:
        """Its values: TFMA leaves the name of the model out if there is only one."""
        return values.get(self._model_name, values) if isinstance(values, dict) else values

    def merge_accumulators(self, accumulators: Iterable[_Gathered]) -> _Gathered:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.join(accumulator)
        return merged

    def extract_output(self, accumulator: _Gathered) -> dict[metric_types.MetricKey, float]:
        labels, predictions = accumulator.columns()
        return {
            _key(measure, self._model_name, output): value
            for output, found in zip(self._output_names, predictions, strict=True)
            for measure, value in self._measured(output, labels, found).items()
        }

    def _measured(
        self, output: str, labels: np.ndarray, predictions: np.ndarray
    ) -> dict[str, float]:
        try:
            return self.measure(output, labels, predictions)
        except (ValueError, IndexError):
            # The slice has images of one kind only, a score is not finite, or there is no output.
            return dict.fromkeys(self.MEASURES, float("nan"))

    @abc.abstractmethod
    def measure(self, output: str, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Computes all `MEASURES` of one output from labels (N,) and predictions (N, ...)."""


class _RankingCombiner(_Combiner):
    MEASURES = (AUROC, AUROC_LOW, AUROC_HIGH, AUPR, FPR_AT_95_TPR, SPREAD)

    def measure(self, output: str, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        scores, is_anomaly = predictions[:, 0], labels.astype(bool)
        ranked = anomalousness(output, scores)
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

    def measure(self, output: str, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
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
    model_names: Iterable[str] | None,
    output_names: Iterable[str] | None,
) -> metric_types.MetricComputations:
    outputs = list(output_names or [""])
    return [
        metric_types.MetricComputation(
            keys=[
                _key(measure, model, output) for output in outputs for measure in combiner.MEASURES
            ],
            preprocessors=None,
            combiner=combiner(model, outputs),
        )
        for model in model_names or [""]
    ]


# TFMA hands over what the arguments of these functions name.
def _ranking_computations(
    name: str = "ranking",
    digest: str = "",
    model_names: Iterable[str] | None = None,
    output_names: Iterable[str] | None = None,
) -> Any:
    return _computations(_RankingCombiner, model_names, output_names)


def _class_computations(
    name: str = "classes",
    digest: str = "",
    model_names: Iterable[str] | None = None,
    output_names: Iterable[str] | None = None,
) -> Any:
    return _computations(_ClassCombiner, model_names, output_names)


def _part(values: Any, output: str) -> np.ndarray | None:
    """The values of an output, whose name TFMA leaves out if there is only one.

    `None` means that there is no such output: the last blessed model may have had another detector.
    """
    return values.get(output) if isinstance(values, dict) else values


def _key(measure: str, model: str, output: str) -> metric_types.MetricKey:
    # The thresholds of an EvalConfig are looked up without `example_weighted`.
    return metric_types.MetricKey(
        name=measure, model_name=model, output_name=output, example_weighted=None
    )
