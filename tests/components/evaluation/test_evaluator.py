import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import StandardOptions
from google.protobuf import text_format
from sklearn.metrics import average_precision_score, roc_auc_score
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2
from tfx.types import standard_artifacts

from components.evaluation.eval_config import eval_config
from components.evaluation.evaluator import _without_baseline
from components.evaluation.metrics import (
    RankingMetrics,
    _class_computations,
    _ranking_computations,
)
from components.serving.sums import write_sums
from models import metrics


@pytest.mark.parametrize("levels", [5, 1000000])
def test_tfma_gives_the_exact_measures_overall_and_a_slice(levels, monkeypatch):
    # Beam's default first tries to download another runner.
    monkeypatch.setattr(StandardOptions, "DEFAULT_RUNNER", "FnApiRunner")
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
    frame.loc[np.flatnonzero(is_anomaly == 0)[:2], "contrast"] = "normal alone"
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
        anomalies = part.score[part.is_anomaly == 1]
        found = min(t for t in anomalies if (anomalies <= t).mean() >= 0.95)
        expected = (part.score[part.is_anomaly == 0] <= found).mean()
        assert measured["fpr_at_95_tpr"] == pytest.approx(expected, abs=1e-12)
        low, high = metrics.auroc_interval(-part.score, part.is_anomaly)
        assert (measured["auroc_low"], measured["auroc_high"]) == pytest.approx((low, high))
        assert measured["spread"] == pytest.approx(np.ptp(part.score))
    one_sided = results[(("contrast", "normal alone"),)][""][""]
    assert np.isnan(float(one_sided["auroc"]["doubleValue"]))


def test_classes_are_measured_on_normal_images_each_class_counting_the_same():
    inputs = [
        metric_types.StandardMetricInputs(
            labels={"class_probabilities": np.array([label])},
            predictions={"class_probabilities": np.array(probabilities)},
            example_weights=None,
        )
        for label, probabilities, count in (
            (0, [0.9, 0.1], 90),
            (1, [0.8, 0.2], 5),
            (1, [0.3, 0.7], 5),
            (-1, [0.05, 0.95], 40),
        )
        for _ in range(count)
    ]
    (computation,) = _class_computations(output_names=["class_probabilities"])
    combiner = computation.combiner
    parts = [combiner.create_accumulator() for _ in range(2)]
    for place, element in enumerate(inputs):
        parts[place % 2] = combiner.add_input(parts[place % 2], element)
    found = combiner.extract_output(combiner.merge_accumulators(parts))
    measured = {key.name: value for key, value in found.items()}
    assert measured["balanced_accuracy"] == pytest.approx(0.75)
    assert measured["guessed"] == 0.5
    assert 0.5 < measured["balanced_accuracy_low"] < 0.65  # Ten images of a class tell little.
    assert measured["spread"] == pytest.approx(0.85)


def test_there_are_no_thresholds_beside_the_verdict():
    config = eval_config(["pp", "anomaly_score"], "digest")
    assert {name for spec in config.metrics_specs for name in spec.output_names} == {
        *("pp", "anomaly_score", "class_probabilities")
    }
    assert not any(spec.per_slice_thresholds for spec in config.metrics_specs)


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
    for model, expected in (("candidate", 0.5), ("baseline", None)):
        (computation,) = _ranking_computations(
            model_names=[model], output_names=["conformity", "patches"]
        )
        combiner = computation.combiner
        gathered = combiner.add_input(combiner.create_accumulator(), inputs)
        labels, (conformity, _) = gathered.columns()
        assert labels.tolist() == [1]
        assert conformity.tolist() == ([[]] if expected is None else [[expected]])
        # Nothing can be ranked with one image, but all measures of all outputs are there.
        found = combiner.extract_output(gathered)
        assert {key.output_name for key in found} == {"conformity", "patches"}
        assert set(found) == set(computation.keys)
        assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ({"anomaly": ["y", "z"], "images": ["elsewhere"]}, ""),
        ({"anomaly": ["z"], "images": ["elsewhere"]}, "has another anomaly (z), so"),
        ({"anomaly": ["z", "y"], "images": [1, 2]}, "has seen 2 of the 5 test images"),
        (None, "does not tell what it was trained on"),
    ],
)
def test_only_a_model_of_the_same_task_that_saw_no_test_image_is_compared(
    seen, reason, write_split, tmp_path
):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), dtype="uint8")
    write_split(tmp_path / "examples", images, [0, 0, 0, -1, -1], "test")
    if seen:
        seen["images"] = [
            hashlib.sha256(images[image].tobytes()).hexdigest() if image in range(5) else image
            for image in seen["images"]
        ]
    inputs = {"examples": [standard_artifacts.Examples()]}
    inputs["examples"][0].uri = str(tmp_path / "examples")
    own = {"anomaly": ["z", "y"], "images": []}
    for name, content in (("model", own), ("baseline_model", seen)):
        inputs[name] = [standard_artifacts.Model()]
        inputs[name][0].uri = str(tmp_path / name)
        served = tmp_path / name / "Format-Serving"
        served.mkdir(parents=True)
        (served / "saved_model.pb").touch()
        write_sums(str(served))
        if content:
            (tmp_path / name / "seen.json").write_text(json.dumps(content))
    told = _without_baseline(inputs)
    assert reason in told and bool(reason) == bool(told)
