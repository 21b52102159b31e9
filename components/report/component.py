"""The Report component: scores the test images and writes the report of a run."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_data_validation as tfdv
import tensorflow_model_analysis as tfma
from tfx import v1 as tfx
from tfx.components.util.model_utils import is_model_blessed
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

from components.evaluator.metrics import AUROC
from components.examples import CONTRAST, TEXT, load_split
from components.report import page
from models.scores import ANOMALY_SCORE

_DISTRIBUTIONS = ("capsad", "tfx", "tensorflow", "keras", "apache-beam", "numpy")
_BATCH_SIZE = 100


class ReportArtifact(Artifact):
    """A folder with `report.html`, `summary.json`, `figures/*.png` and `tables/*.csv`."""

    # Kubeflow takes only names of this form.
    TYPE_NAME = "capsad.Report"


@tfx.dsl.components.component
def Report(  # noqa: N802
    examples: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.Examples],
    statistics: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ExampleStatistics],
    model: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.Model],
    model_run: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ModelRun],
    evaluation: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ModelEvaluation],
    blessing: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ModelBlessing],
    report: tfx.dsl.components.OutputArtifact[ReportArtifact],
    run: tfx.dsl.components.Parameter[str],
) -> None:
    """Writes the report of one run; `run` is JSON: what was run and how."""
    run = json.loads(run)
    test = load_split(examples.uri, "test", tuple(run["image_size"]))
    outputs = score(path_utils.serving_model_path(model.uri), test.images)
    predicted = outputs["class_probabilities"].argmax(axis=-1)
    normal = test.labels >= 0
    measured = _evaluation(evaluation.uri)
    training = json.loads(Path(model_run.uri, "history.json").read_text())
    splits = _split_sizes(statistics)
    splits["test"] = _counts(test.texts)
    blessed = is_model_blessed(blessing)

    data = page.ReportData(
        title=run["name"],
        detector=run["detector"],
        source=run["source"],
        normal_classes=tuple(run["normal_classes"]),
        anomaly_classes=tuple(run["anomaly_classes"]),
        images=test.images,
        reconstructions=outputs.get("reconstruction"),
        labels=test.labels,
        class_text=test.texts,
        predicted=predicted,
        ids=test.ids,
        scores={name: outputs[name] for name in measured["overall"]},
        auroc={
            name: {score: values[AUROC] for score, values in scores.items()}
            for name, scores in measured.items()
        },
        measures=measured["overall"],
        accuracy=float((predicted == test.labels)[normal].mean()),
        calibration_size=sum(splits["calibration"].values()),
        split_sizes=splits,
        history=training["history"],
        blessed=blessed,
        gates=_gates(run["gate"], measured["overall"][ANOMALY_SCORE][AUROC], blessed),
        config=run["config"],
        versions={
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _DISTRIBUTIONS},
        },
        seed=run["seed"],
        seconds={"Training": training["seconds"]},
    )
    page.write(report.uri, data)
    summary = {
        "auroc": {name: values[AUROC] for name, values in measured["overall"].items()},
        "accuracy": data.accuracy,
        "blessed": blessed,
        "gates": data.gates,
    }
    Path(report.uri, "summary.json").write_text(json.dumps(summary, indent=2))


def score(saved_model: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """Scores images, uint8 (N, H, W, K), with a SavedModel: every output, first axis N."""
    # The loaded object must outlive its signatures.
    loaded = tf.saved_model.load(saved_model)
    signature = loaded.signatures["score_arrays"]
    batches = [
        signature(images=tf.constant(images[start : start + _BATCH_SIZE]))
        for start in range(0, len(images), _BATCH_SIZE)
    ]
    return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in batches[0]}


def _evaluation(uri: str) -> dict[str, dict[str, dict[str, float]]]:
    """Slice ("overall" or a normal class) -> score -> measure -> value, of the candidate."""
    measured = {}
    for slice_key, by_output in tfma.load_eval_result(uri).slicing_metrics:
        name = "overall" if not slice_key else dict(slice_key)[CONTRAST]
        name = name.decode() if isinstance(name, bytes) else name
        measured[name] = {
            score: {
                measure: float(value.get("doubleValue", "nan"))  # NaN comes as text
                for measure, value in by_key[""].items()
            }
            for score, by_key in by_output.items()
            if score
        }
    return measured


def _split_sizes(statistics) -> dict[str, dict[str, int]]:
    sizes = {}
    for split in ("train", "eval", "calibration"):
        described = tfdv.load_stats_binary(
            os.path.join(statistics.uri, f"Split-{split}", "FeatureStats.pb")
        )
        (feature,) = (
            feature for feature in described.datasets[0].features if feature.path.step[0] == TEXT
        )
        sizes[split] = {
            bucket.label: int(bucket.sample_count)
            for bucket in feature.string_stats.rank_histogram.buckets
        }
    return sizes


def _counts(texts: np.ndarray) -> dict[str, int]:
    names, counts = np.unique(texts, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _gates(gate, auroc, blessed) -> list[tuple[str, str]]:
    passed = auroc >= gate["min_auroc"]
    gates = [
        (
            f"auROC of {ANOMALY_SCORE} at least {gate['min_auroc']:g}",
            f"{auroc:.4f}: {'passed' if passed else 'failed'}",
        )
    ]
    # Whatever else the Evaluator refuses is the comparison with the model blessed before.
    unchanged = blessed or not passed
    gates.append(
        (
            f"auROC at most {gate['max_auroc_drop']:g} below the last blessed model's",
            "passed or no such model" if unchanged else "failed",
        )
    )
    return gates
