"""Writes a report: one self-contained HTML file, with its figures and tables beside it."""

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from components.evaluation.report import figures, tables
from components.evaluation.report.tables import Rate
from models import metrics
from models.files import whole_folder
from models.scores import ANOMALY_SCORE, anomalousness

OVERALL = "overall"
_ALPHA = 0.05
_SHOWN = 8
_MISTAKES = 8


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that a report tells."""

    title: str
    detector: str
    source: str
    normal_classes: tuple[str, ...]
    anomaly_classes: tuple[str, ...]
    images: np.ndarray
    """Test images, uint8 (N, H, W, K)."""
    reconstructions: np.ndarray | None
    """float (N, H', W', K) in [0, 1]; `None` from a detector that makes none."""
    labels: np.ndarray
    """int (N,): index among the normal classes; -1 for an anomaly."""
    class_text: np.ndarray
    """str (N,): name of the true class."""
    predicted: np.ndarray
    """int (N,): index among the normal classes."""
    ids: np.ndarray
    """str (N,)."""
    scores: Mapping[str, np.ndarray]
    """Score name -> float (N,); `anomaly_score` among them."""
    auroc: Mapping[str, Mapping[str, float]]
    """`overall` or a normal class -> score name -> auROC against the anomalies."""
    measures: Mapping[str, Mapping[str, float]]
    """Score name -> measure -> value over all test images."""
    accuracy: float
    """Of the predicted class, on normal images."""
    calibration_size: int
    split_sizes: Mapping[str, Mapping[str, int]]
    """Split -> class -> images."""
    history: Mapping[str, Sequence[float]]
    """As Keras records it."""
    blessed: bool
    gates: Sequence[tuple[str, str]]
    """Gate, outcome."""
    config: Mapping[str, object]
    versions: Mapping[str, str]
    seed: int
    seconds: Mapping[str, float]
    """What took how long."""


def write(folder: str, data: ReportData) -> None:
    """Writes `report.html`, `summary.json`, `figures/*.png` and `tables/*.csv` into `folder`.

    The same data gives the same bytes. Nothing appears in `folder` until all is written, and the
    HTML file needs none of the others.
    """
    is_anomaly = data.labels < 0
    thresholds = tables.thresholds(data.scores[ANOMALY_SCORE], is_anomaly, data.calibration_size)
    chosen = min(thresholds, key=lambda row: abs(row.alpha - _ALPHA), default=None)
    flagged = chosen and data.scores[ANOMALY_SCORE] > chosen.threshold
    normal = tables.normal_classes(
        data.normal_classes,
        data.labels,
        data.predicted,
        flagged,
        data.auroc,
        list(data.scores),
    )
    anomalous = tables.anomaly_classes(
        data.anomaly_classes,
        data.normal_classes,
        data.class_text,
        data.labels,
        data.predicted,
        flagged,
    )

    pictures = {
        name: figures.png(figure) for name, figure in _figures(data, is_anomaly, chosen).items()
    }
    html = (
        _environment()
        .get_template("report.html")
        .render(
            data=data,
            scores=list(data.scores),
            pictures={
                name: base64.b64encode(picture).decode() for name, picture in pictures.items()
            },
            thresholds=thresholds,
            chosen=chosen,
            smallest_alpha=1 / (data.calibration_size + 1),
            normal=normal,
            anomalous=anomalous,
            settings=tables.flatten(dict(data.config)),
            splits=list(data.split_sizes),
            classes=[*data.normal_classes, *data.anomaly_classes],
        )
    )
    summary = {
        "auroc": data.auroc[OVERALL],
        "accuracy": data.accuracy,
        "blessed": data.blessed,
        "gates": data.gates,
    }
    with whole_folder(folder) as incomplete:
        (incomplete / "figures").mkdir()
        for name, picture in pictures.items():
            (incomplete / "figures" / f"{name}.png").write_bytes(picture)
        (incomplete / "tables").mkdir()
        for name, rows in _csv_tables(data, thresholds, normal, anomalous).items():
            with (incomplete / "tables" / f"{name}.csv").open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        (incomplete / "report.html").write_text(html, encoding="utf-8")
        (incomplete / "summary.json").write_text(json.dumps(summary, indent=2))


def _figures(data, is_anomaly, chosen):
    ranked = {name: anomalousness(name, values) for name, values in data.scores.items()}
    drawn = {
        "roc": figures.roc_figure(
            {name: metrics.roc_curve(values, is_anomaly) for name, values in ranked.items()},
            data.auroc[OVERALL],
        ),
        "history": figures.history_figure(data.history),
    }
    for name, values in data.scores.items():
        marked = chosen.threshold if chosen and name == ANOMALY_SCORE else None
        drawn[f"histogram_{name}"] = figures.histogram_figure(values, is_anomaly, name, marked)
    for kind, among in (("normal", ~is_anomaly), ("anomalous", is_anomaly)):
        places = tables.first_of_each(data.class_text, among, _SHOWN)
        drawn[f"reconstructions_{kind}"] = figures.reconstruction_figure(
            data.images[places],
            None if data.reconstructions is None else data.reconstructions[places],
            [f"{data.class_text[i]}\n{data.scores[ANOMALY_SCORE][i]:.3f}" for i in places],
        )
    suspicion = data.scores[ANOMALY_SCORE]
    for kind, among, direction in (("missed", is_anomaly, 1), ("alarmed", ~is_anomaly, -1)):
        places = np.flatnonzero(among)
        worst = places[np.argsort(direction * suspicion[places], kind="stable")][:_MISTAKES]
        drawn[f"mistakes_{kind}"] = figures.gallery_figure(
            data.images[worst],
            [
                f"{data.class_text[i]}, seen as {data.normal_classes[data.predicted[i]]}\n"
                f"{suspicion[i]:.3f}"
                for i in worst
            ],
        )
    return drawn


def _csv_tables(data, thresholds, normal, anomalous):
    scores = list(data.scores)
    return {
        "thresholds": [
            [
                "alpha",
                "threshold",
                "false_alarm_rate",
                "low",
                "high",
                "detection_rate",
                "low",
                "high",
            ],
            *(
                [
                    row.alpha,
                    row.threshold,
                    row.false_alarms.value,
                    *row.false_alarms.interval,
                    row.detections.value,
                    *row.detections.interval,
                ]
                for row in thresholds
            ),
        ],
        "measures": [
            ["score", *next(iter(data.measures.values()))],
            *([name, *values.values()] for name, values in data.measures.items()),
        ],
        "normal_classes": [
            ["class", "images", *(f"auroc_{name}" for name in scores), "accuracy", "false_alarms"],
            *(
                [
                    row.name,
                    row.images,
                    *row.auroc.values(),
                    row.correct.value,
                    row.false_alarms.value if row.false_alarms else "",
                ]
                for row in normal
            ),
        ],
        "anomaly_classes": [
            ["class", "images", "detected", "mistaken_for", "mistaken"],
            *(
                [
                    row.name,
                    row.images,
                    row.detections.value if row.detections else "",
                    row.mistaken_for,
                    row.mistaken.value,
                ]
                for row in anomalous
            ),
        ],
        "images": [
            ["id", "class", "is_anomaly", "predicted", *scores],
            *zip(
                data.ids,
                data.class_text,
                (data.labels < 0).astype(int),
                np.array(data.normal_classes)[data.predicted],
                *data.scores.values(),
                strict=True,
            ),
        ],
    }


def _percent(rate: Rate | float | None, digits: int = 1) -> str:
    value = rate.value if isinstance(rate, Rate) else rate
    return "–" if value is None or np.isnan(value) else f"{100 * value:.{digits}f} %"


def _interval(rate: Rate) -> str:
    low, high = rate.interval
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4f}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, interval=_interval, number=_number)
    return environment
