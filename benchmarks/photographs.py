"""Measures detectors on a folder of photographs: each class in turn is held out, then alone normal.

    python benchmarks/photographs.py FOLDER --weights FILE

FOLDER holds class folders. All methods get the same splits; each seed makes other splits. Rows are
added to docs/results/photographs.jsonl, and what is there is not measured again. The table and the
chart beside it are written from all rows of FOLDER.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from components.data import sources
from components.data.splits import Split
from components.evaluation.report.figures import bar_figure, png
from models import metrics
from models.errors import UserError
from models.files import write_whole
from models.score_names import ANOMALY_SCORE
from pipeline import configs
from pipeline.machine import describe
from pipeline.plan import Plan, plan

RESULTS = Path(__file__).parents[1] / "docs" / "results"
HELD_OUT, ALONE = "one class held out", "one class alone normal"
_ALPHA = 0.05
_NEIGHBOURS = 2
_SLOW = "capsnet, 32 pixels"  # It takes minutes, and is far behind: one seed must do.
# Settings of `configs.configure` for each detector.
_DETECTORS: dict[str, dict[str, dict[str, Any]]] = {
    HELD_OUT: {
        "capsnet": {},
        "patch_knn": {"detector": "patch_knn"},
        _SLOW: {"image_size": (32, 32)},
    },
    ALONE: {"patch_knn": {}, "capsnet": {"detector": "capsnet"}},
}
_PLAIN = ("nearest neighbours", "Mahalanobis distance")


class Scored(NamedTuple):
    """What a method gives for the test images."""

    normality: np.ndarray
    """float (N,), higher = more normal."""
    flagged: np.ndarray
    """bool (N,)."""
    accuracy: float
    scores: dict[str, np.ndarray]
    train_seconds: float
    score_seconds: float


def main() -> None:
    """Measures what is missing, then writes table and chart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", help="folder of class folders of photographs")
    parser.add_argument("--weights", help="file of weights of the backbone, see `capsad run`")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    name = Path(given.folder).resolve().name
    file = RESULTS / "photographs.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["data"], row["setting"], row["class"], row["seed"], row["method"]) for row in rows}
    classes = sources.get("images", given.folder).class_names
    with tempfile.TemporaryDirectory() as kept:
        for setting in (HELD_OUT, ALONE):
            for seed in range(given.seeds):
                for chosen in classes:
                    others = [f for f in classes if f != chosen]
                    anomaly = (chosen,) if setting == HELD_OUT else tuple(others)
                    wanted = [
                        method
                        for method in (*_DETECTORS[setting], *_PLAIN)
                        if (name, setting, chosen, seed, method) not in done
                        and (seed == 0 or method != _SLOW)
                    ]
                    for method, row in measure(
                        setting, wanted, given.folder, anomaly, seed, given.weights, kept
                    ):
                        rows.append(
                            {
                                "data": name,
                                "setting": setting,
                                "class": chosen,
                                "seed": seed,
                                "method": method,
                                **row,
                            }
                        )
                        write_whole(file, "".join(json.dumps(row) + "\n" for row in rows))
                        print(rows[-1], flush=True)
    write_report([row for row in rows if row["data"] == name], name)


def measure(
    setting: str,
    methods: list[str],
    folder: str,
    anomaly: tuple[str, ...],
    seed: int,
    weights: str | None,
    kept: str,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measures methods on one choice of classes: pairs of method and row."""
    splits: dict[tuple[int, int], dict[str, Split]] = {}
    for method in methods:
        settings = _DETECTORS[setting].get(method, {"detector": "patch_knn"})
        has_backbone = "image_size" not in settings
        planned = plan(
            configs.configure(
                images=folder,
                anomaly=anomaly,
                seed=seed,
                split_seed=seed,
                weights=weights if has_backbone else None,
                **settings,
            )
        )
        if planned.image_size not in splits:
            splits[planned.image_size] = planned.load_splits()
        loaded = splits[planned.image_size]
        test = loaded["test"]
        planned.detector.features_dir = kept
        scored = (plain if method in _PLAIN else trained)(method, planned, loaded)
        is_anomaly = test.labels < 0
        low, high = metrics.auroc_interval(-scored.normality, is_anomaly)
        yield (
            method,
            {
                "auroc": metrics.auroc(-scored.normality, is_anomaly),
                "low": low,
                "high": high,
                "scores": {
                    score: metrics.auroc(-values, is_anomaly)
                    for score, values in scored.scores.items()
                },
                "accuracy": scored.accuracy,
                "false_alarms": float(scored.flagged[~is_anomaly].mean()),
                "found": float(scored.flagged[is_anomaly].mean()),
                "tested": len(test.images),
                "train_s": round(scored.train_seconds, 2),
                "score_images_per_s": round(len(test.images) / scored.score_seconds, 1),
            },
        )


def trained(method: str, planned: Plan, splits: dict[str, Split]) -> Scored:
    """Trains and calibrates a detector, and scores the test images from pixels."""
    del method
    from models.inference import in_batches

    train, watched, test = (splits[name] for name in ("train", "eval", "test"))
    started = time.monotonic()
    scorer = planned.detector.fit(
        train.images,
        train.labels,
        (watched.images, watched.labels),
        splits["calibration"].images,
    )
    between = time.monotonic()
    outputs = in_batches(scorer, test.images, 100)
    normal = test.labels >= 0
    predicted = outputs["class_probabilities"].argmax(axis=-1)
    return Scored(
        outputs[planned.detector.calibrated_score],
        outputs[ANOMALY_SCORE] > 1 - _ALPHA,
        float((predicted == test.labels)[normal].mean()),
        {name: outputs[name] for name in planned.detector.scores},
        between - started,
        time.monotonic() - between,
    )


def plain(method: str, planned: Plan, splits: dict[str, Split]) -> Scored:
    """Scores by a textbook method on the mean of the last feature map."""
    from models.features import LAST, compute_features, feature_network

    detector: Any = planned.detector
    shape = (*planned.image_size, splits["train"].images.shape[-1])
    network = feature_network(detector.backbone, detector.weights, shape)
    started = time.monotonic()
    train, calibration, test = (
        compute_features(network, splits[name].images, detector.features_dir)
        .read(LAST)
        .mean(axis=(1, 2))
        for name in ("train", "calibration", "test")
    )
    fit = _neighbours if method == _PLAIN[0] else _mahalanobis
    score = fit(train, splits["train"].labels)
    between = time.monotonic()
    normality, predicted = score(test)
    usual = np.sort(score(calibration)[0])
    # Conformal p-values, as those of the detectors.
    lower = np.searchsorted(usual, normality, "right")
    is_normal = splits["test"].labels >= 0
    return Scored(
        normality,
        (1 + lower) / (1 + len(usual)) < _ALPHA,
        float((predicted == splits["test"].labels)[is_normal].mean()),
        {},
        between - started,
        time.monotonic() - between,
    )


def _neighbours(train: np.ndarray, labels: np.ndarray) -> Callable:
    """Mean distance to the two nearest, as in Reiss et al. 2021, arXiv 2010.05903 (DN2)."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(train)

    def score(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distances, places = index.kneighbors(features)
        return -distances.mean(axis=1), labels[places[:, 0]]

    return score


def _mahalanobis(train: np.ndarray, labels: np.ndarray) -> Callable:
    """Distance to the nearest class mean, as in Lee et al. 2018, arXiv 1807.03888."""
    from sklearn.covariance import LedoitWolf

    means = np.stack([train[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    inverse = LedoitWolf(assume_centered=True).fit(train - means[labels]).precision_

    def score(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        off = features[:, None] - means
        squared = np.einsum("nci,ij,ncj->nc", off, inverse, off, optimize=True)
        return -squared.min(axis=1), squared.argmin(axis=1)

    return score


def write_report(rows: list[dict[str, Any]], name: str) -> None:
    """Writes the tables and the chart."""
    text = [
        f"# Photographs: {name}",
        "",
        f"    python benchmarks/photographs.py {name.upper()} --weights FILE",
        "",
        "This was measured on " + describe().replace("; ", ", with\n") + ".",
        "",
    ]
    classes = sorted({row["class"] for row in rows})
    for setting in (HELD_OUT, ALONE):
        of_setting = [row for row in rows if row["setting"] == setting]
        methods = list(dict.fromkeys(row["method"] for row in of_setting))
        seeds = len({row["seed"] for row in of_setting})

        def column(method: str, key: str, rows: list[dict[str, Any]] = of_setting) -> np.ndarray:
            return np.array([row[key] for row in rows if row["method"] == method])

        def by_class(method: str, rows: list[dict[str, Any]] = of_setting) -> list[float]:
            own = [row for row in rows if row["method"] == method]
            return [
                float(np.mean([row["auroc"] for row in own if row["class"] == found]))
                for found in classes
            ]

        text += [
            f"## {setting.capitalize()}",
            "",
            f"The auROC of each class is the mean of {seeds} seeds, each with other splits "
            f"({_SLOW}: one seed). The worst is that of all classes and seeds.",
            "",
            "| | " + " | ".join(classes) + " | mean | worst | accuracy | false alarms at 0.05 "
            "| found | training, s | images scored a second |",
            "|---|" + "---:|" * (len(classes) + 7),
        ]
        for method in methods:
            cells = [
                *(f"{value:.3f}" for value in by_class(method)),
                f"**{column(method, 'auroc').mean():.3f}**",
                f"{column(method, 'auroc').min():.3f}",
                f"{column(method, 'accuracy').mean():.3f}",
                f"{column(method, 'false_alarms').mean():.3f}",
                f"{column(method, 'found').mean():.3f}",
                f"{column(method, 'train_s').mean():.0f}",
                f"{column(method, 'score_images_per_s').mean():.0f}",
            ]
            text.append(f"| {method} | " + " | ".join(cells) + " |")
        half = {
            method: (column(method, "high") - column(method, "low")).mean() / 2
            for method in methods
        }
        text += [
            "",
            "Half the width of the 95 % interval of one auROC, on average: "
            + ", ".join(f"{method} {value:.3f}" for method, value in half.items())
            + ".",
            "",
        ]
        scores = {
            (method, score): np.mean(
                [row["scores"][score] for row in of_setting if row["method"] == method]
            )
            for method in methods
            for score in next(row for row in of_setting if row["method"] == method)["scores"]
        }
        text += [
            "The mean auROC of each score: "
            + ", ".join(f"{m} `{score}` {value:.3f}" for (m, score), value in scores.items())
            + ".",
            "",
        ]
        series = {
            method: [
                (
                    float(np.mean(values)),
                    float(np.mean(values) - np.std(values)),
                    float(np.mean(values) + np.std(values)),
                )
                for found in classes
                for values in [
                    [r["auroc"] for r in of_setting if (r["method"], r["class"]) == (method, found)]
                ]
            ]
            for method in methods
        }
        chart = f"photographs-{'held-out' if setting == HELD_OUT else 'alone'}.png"
        write_whole(RESULTS / chart, png(bar_figure(classes, series)))
        text += [f"![auROC of each method and class]({chart})", ""]
    write_whole(RESULTS / "photographs.md", "\n".join(text))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
