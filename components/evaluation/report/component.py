"""The Report component, which scores the test images and writes the report of a run."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path

import numpy as np
import tensorflow_data_validation as tfdv
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

from components.data.examples import TEXT, UNREADABLE_FILE, load_digests, load_masks, load_split
from components.data.folder import UNREADABLE, Table
from components.evaluation import verdict
from components.evaluation.eval_config import CLASSES
from components.evaluation.metrics import AUROC, load_measures
from components.evaluation.report import page
from components.serving.export import NEAREST_IMAGE
from components.serving.heatmaps import stretched
from components.serving.runner import SavedModelClient
from models import metrics
from models.score_names import ANOMALY_MAP

_DISTRIBUTIONS = ("capsad", "tfx", "tensorflow", "keras", "apache-beam", "numpy")


class ReportArtifact(Artifact):
    """A folder with `report.html`, `summary.json`, `figures/*.png` and `tables/*.csv`."""

    # Kubeflow accepts only names of this form.
    TYPE_NAME = "capsad.Report"


@component
def Report(  # noqa: N802
    examples: InputArtifact[standard_artifacts.Examples],
    statistics: InputArtifact[standard_artifacts.ExampleStatistics],
    model: InputArtifact[standard_artifacts.Model],
    model_run: InputArtifact[standard_artifacts.ModelRun],
    evaluation: InputArtifact[standard_artifacts.ModelEvaluation],
    report: OutputArtifact[ReportArtifact],
    run: Parameter[str],
) -> None:
    """Writes the report of one run. `run` is JSON text that describes the run."""
    run = json.loads(run)
    test = load_split(examples.uri, "test", tuple(run["image_size"]))
    client = SavedModelClient(path_utils.serving_model_path(model.uri), pictures=True)
    outputs = client.score_arrays(test.images)
    predicted = outputs["class_probabilities"].argmax(axis=-1)
    normal = test.labels >= 0
    measured = {
        name: {output: values for output, values in outputs.items() if output != CLASSES}
        for name, outputs in load_measures(evaluation.uri).items()
    }
    training = json.loads(Path(model_run.uri, "history.json").read_text())
    splits = _split_sizes(statistics.uri)
    splits["test"] = _counts(test.texts)

    data = page.ReportData(
        title=run["name"],
        detector=run["detector"],
        source=run["source"],
        normal_classes=tuple(run["normal_classes"]),
        anomaly_classes=tuple(run["anomaly_classes"]),
        images=test.images,
        anomaly_maps=outputs.get(ANOMALY_MAP),
        reconstructions=outputs.get("reconstruction"),
        nearest_images=_nearest_images(
            examples.uri, tuple(run["image_size"]), outputs.get(NEAREST_IMAGE)
        ),
        pixels=_pixels(examples.uri, normal, outputs.get(ANOMALY_MAP)),
        labels=test.labels,
        class_text=test.texts,
        predicted=predicted,
        ids=test.ids,
        digests=load_digests(examples.uri, "test"),
        scores={name: outputs[name] for name in measured["overall"]},
        calibrated_score=client.metadata()["calibrated_score"],
        auroc={
            name: {score: values[AUROC] for score, values in scores.items()}
            for name, scores in measured.items()
        },
        measures=measured["overall"],
        accuracy=float((predicted == test.labels)[normal].mean()),
        calibration_size=sum(splits["calibration"].values()),
        split_sizes=splits,
        history=training["history"],
        verdict=verdict.read(evaluation.uri),
        data_notes=[
            *run["data"]["warnings"],
            *run["data"]["left_out"],
            *_undecoded(examples.uri),
            *training["notes"],
            *verdict.overfitting(
                training["history"],
                takes_best=run["config"]["training"]["settings"].get("patience") is not None,
            ),
        ],
        config=run["config"],
        versions={
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _DISTRIBUTIONS},
        },
        seed=run["seed"],
        seconds={"Training": training["seconds"]},
    )
    page.write(report.uri, data)


def _nearest_images(
    examples_uri: str, image_size: tuple[int, int], names: np.ndarray | None
) -> np.ndarray | None:
    """The training images of the given names, uint8 (N, H, W, K)."""
    if names is None:
        return None
    train = load_split(examples_uri, "train", image_size, set(names.tolist()))
    place = {name: index for index, name in enumerate(train.ids.tolist())}
    return train.images[[place[name] for name in names.tolist()]]


def _pixels(
    examples_uri: str, normal: np.ndarray, maps: np.ndarray | None
) -> dict[str, float] | None:
    """How well anomaly maps (N, h, w) find anomalous pixels, if there are masks.

    Normal images (N,) have no anomalous pixels; anomalies without a mask are left out.
    """
    if maps is None:
        return None
    masks = load_masks(examples_uri, "test")
    sizes = {mask.shape for mask in masks if mask is not None}
    if not sizes:
        return None
    (size,) = sizes
    blank = [np.zeros(size, bool) if is_normal else None for is_normal in normal]
    pixels = [blank[i] if mask is None else mask for i, mask in enumerate(masks)]
    known = [place for place, of_image in enumerate(pixels) if of_image is not None]
    truth = np.array([pixels[place] for place in known], bool)
    found = np.stack([stretched(maps[place], size) for place in known])
    if not truth.any() or truth.all():
        return None
    return {
        "auroc": metrics.auroc(found, truth),
        "pro": metrics.per_region_overlap(found, truth),
        "images": len(known) - int(normal.sum()),
    }


def _undecoded(examples_uri: str) -> list[str]:
    """A sentence on the images that ExampleGen could not decode, if there were any."""
    with fileio.open(os.path.join(examples_uri, UNREADABLE_FILE)) as file:
        table = Table()
        for image in json.load(file):
            table.add(UNREADABLE, image)
    return table.lines()


def _split_sizes(statistics_uri: str) -> dict[str, dict[str, int]]:
    """Reads the number of images: split -> class -> count."""
    sizes = {}
    for split in ("train", "eval", "calibration"):
        described = tfdv.load_stats_binary(
            os.path.join(statistics_uri, f"Split-{split}", "FeatureStats.pb")
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
