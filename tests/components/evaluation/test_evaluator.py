import numpy as np
import pandas as pd
import pytest
import tensorflow_model_analysis as tfma
from google.protobuf import text_format
from sklearn.metrics import average_precision_score, roc_auc_score
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation.eval_config import eval_config
from components.evaluation.metrics import RankingMetrics, _computations


@pytest.mark.parametrize("levels", [5, 1000000])
def test_tfma_gives_the_exact_measures_overall_and_a_slice(levels):
    generator = np.random.default_rng(0)
    is_anomaly = generator.integers(0, 2, 400)
    # A narrow range of negative scores, in which TFMA's own AUC goes wrong.
    scores = -7 - 1e-3 * (generator.integers(0, levels, 400) / levels + is_anomaly / 2)
    frame = pd.DataFrame(
        {
            "is_anomaly": is_anomaly,
            "score": scores,
            "contrast": np.where(generator.random(400) < 0.5, "a", "b"),
        }
    )
    config = text_format.Parse(
        f"""
        model_specs {{ label_key: "is_anomaly" prediction_key: "score" }}
        slicing_specs {{ }}
        slicing_specs {{ feature_keys: "contrast" }}
        metrics_specs {{
          metrics {{ class_name: "RankingMetrics" module: "{RankingMetrics.__module__}" }}
        }}
        """,
        config_pb2.EvalConfig(),
    )
    results = dict(tfma.analyze_raw_data(frame, config).slicing_metrics)
    for key, part in {(): frame, (("contrast", "a"),): frame[frame.contrast == "a"]}.items():
        measured = {name: value["doubleValue"] for name, value in results[key][""][""].items()}
        expected = roc_auc_score(part.is_anomaly, -part.score)
        assert measured["auroc"] == pytest.approx(expected, abs=1e-12)
        expected = average_precision_score(part.is_anomaly, -part.score)
        assert measured["aupr"] == pytest.approx(expected, abs=1e-12)
        assert 0 < measured["fpr_at_95_tpr"] <= 1


def test_one_sided_slices_are_nan_not_an_error():
    frame = pd.DataFrame({"is_anomaly": [0, 0], "score": [0.1, 0.2]})
    config = config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(label_key="is_anomaly", prediction_key="score")],
        slicing_specs=[config_pb2.SlicingSpec()],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(
                        class_name="RankingMetrics", module=RankingMetrics.__module__
                    )
                ]
            )
        ],
    )
    ((_, measured),) = tfma.analyze_raw_data(frame, config).slicing_metrics
    assert np.isnan(float(measured[""][""]["auroc"]["doubleValue"]))


def test_only_the_calibrated_score_is_gated_and_only_overall():
    config = eval_config(["pp", "re", "anomaly_score"], 0.8, 0.03, "digest")
    gated = [spec for spec in config.metrics_specs if spec.per_slice_thresholds]
    assert [list(spec.output_names) for spec in gated] == [["anomaly_score"]]
    (gate,) = gated[0].per_slice_thresholds["auroc"].thresholds
    assert list(gate.slicing_specs) == [config_pb2.SlicingSpec()]
    assert gate.threshold.value_threshold.lower_bound.value == 0.8
    assert gate.threshold.change_threshold.absolute.value == -0.03


def test_a_score_that_the_last_blessed_model_did_not_have_is_nan():
    """It may have had another detector, whose scores have other names."""
    inputs = metric_types.StandardMetricInputs(
        labels={"candidate": np.array([1]), "baseline": np.array([1])},
        predictions={
            "candidate": {"conformity": np.array([0.5])},
            "baseline": {"patches": np.array([0.2])},
        },
        example_weights=None,
    )
    for model, count in (("candidate", 1), ("baseline", 0)):
        (computation,) = _computations(
            model_names=[model],
            output_names=["conformity"],
            eval_config=config_pb2.EvalConfig(
                model_specs=[config_pb2.ModelSpec(name=n) for n in ("candidate", "baseline")]
            ),
        )
        combiner = computation.combiner
        scores, _ = combiner.add_input(combiner.create_accumulator(), inputs)
        assert len(scores) == count
