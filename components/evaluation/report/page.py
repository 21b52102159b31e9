"""Writes a report: one self-contained HTML file, and its figures and tables beside it."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from components.evaluation.metrics import OVERALL
from components.evaluation.report import figures, tables, templates
from components.evaluation.report.tables import AnomalyClass, NormalClass, Threshold
from components.evaluation.verdict import Verdict
from components.serving.heatmaps import overlay
from models import metrics
from models.files import spreadsheet_safe, whole_folder
from models.score_names import ANOMALY_SCORE, anomalousness

_ALPHA = 0.05
_SHOWN = 8
_MISTAKES = 8
_PIXELS = 256  # Larger images are made smaller for the page.
_MUSH = 0.1  # Reconstructions that vary less than this share of the images are called a mush.
_COMPARED = 1000

_Row = Sequence[object]


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All data of a report."""

    title: str
    detector: str
    source: str
    normal_classes: tuple[str, ...]
    anomaly_classes: tuple[str, ...]
    images: np.ndarray
    """Test images, uint8 (N, H, W, K)."""
    anomaly_maps: np.ndarray | None
    """float (N, h, w), see `components.serving.heatmaps`; `None` if the detector has none."""
    reconstructions: np.ndarray | None
    """float (N, H', W', K) in [0, 1], or `None` if the detector computes none."""
    nearest_images: np.ndarray | None
    """uint8 (N, H, W, K): the most similar training image, or `None` if the model tells none."""
    pixels: Mapping[str, float] | None
    """`auroc`, `pro` and the number of `images` of the anomaly maps, if there are masks."""
    labels: np.ndarray
    """int (N,): index among the normal classes, or -1 for an anomaly."""
    class_text: np.ndarray
    """str (N,): name of the true class."""
    predicted: np.ndarray
    """int (N,): index among the normal classes."""
    ids: np.ndarray
    """str (N,): names of the images."""
    digests: Sequence[str]
    """Digests of what the images were made of, N."""
    scores: Mapping[str, np.ndarray]
    """Score name -> float (N,). `anomaly_score` is one of the scores."""
    calibrated_score: str
    """Name of the score that `anomaly_score` calibrates."""
    auroc: Mapping[str, Mapping[str, float]]
    """`overall` or a normal class -> score name -> auROC against the anomalies."""
    measures: Mapping[str, Mapping[str, float]]
    """Score name -> measure -> value over all test images."""
    accuracy: float
    """Share of the normal images whose predicted class is right, in [0, 1]."""
    calibration_size: int
    split_sizes: Mapping[str, Mapping[str, int]]
    """Split -> class -> number of images."""
    history: Mapping[str, Sequence[float]]
    """Measure -> one value for each epoch, as Keras records it."""
    verdict: Verdict
    data_notes: Sequence[str]
    """Sentences about data and training: warnings, and what was left out."""
    config: Mapping[str, object]
    versions: Mapping[str, str]
    seed: int
    seconds: Mapping[str, float]
    """Task -> its duration."""


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """The tables that the page and the CSV files have in common."""

    thresholds: list[Threshold]
    chosen: Threshold | None
    """The threshold that the page recommends; `None` if the calibration allows none."""
    normal: list[NormalClass]
    anomalous: list[AnomalyClass]


class _Picture(NamedTuple):
    """A picture of the page."""

    png: str
    """Its content in base64."""
    alt: str


class _Item(NamedTuple):
    """An image of a gallery, with what is shown below it."""

    pictures: list[_Picture]
    caption: str
    anomaly_score: float


def write(folder: str, data: ReportData) -> None:
    """Writes `report.html`, `summary.json`, `figures/*.png` and `tables/*.csv` into `folder`.

    The same data gives the same bytes. Nothing appears in `folder` before all files are written.
    The HTML file does not need the other files.
    """
    made = _tables(data)
    pictures = {name: figures.png(figure) for name, figure in _figures(data, made.chosen).items()}
    html = _html(data, made, pictures)
    summary = {
        "anomaly_classes": data.anomaly_classes,
        "measures": data.measures,
        "settings": {
            **tables.flatten(dict(data.config)),
            **tables.flatten(dict(data.versions), "version of "),
        },
        "seconds": sum(data.seconds.values()),
        "history": data.history,
        "auroc": data.auroc[OVERALL],
        "pixels": data.pixels,
        "accuracy": data.accuracy,
        "normal_classes": len(data.normal_classes),
        "calibration_images": data.calibration_size,
        "verdict": dataclasses.asdict(data.verdict),
        "data": data.data_notes,
    }
    with whole_folder(folder) as incomplete:
        (incomplete / "figures").mkdir()
        for name, picture in pictures.items():
            (incomplete / "figures" / f"{name}.png").write_bytes(picture)
        (incomplete / "tables").mkdir()
        for name, rows in _csv_tables(data, made).items():
            with (incomplete / "tables" / f"{name}.csv").open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([spreadsheet_safe(cell) for cell in row] for row in rows)
        (incomplete / "report.html").write_text(html, encoding="utf-8")
        (incomplete / "summary.json").write_text(json.dumps(summary, indent=2))


def _tables(data: ReportData) -> _Tables:
    is_anomaly = data.labels < 0
    thresholds = tables.thresholds(data.scores[ANOMALY_SCORE], is_anomaly, data.calibration_size)
    chosen = min(thresholds, key=lambda row: abs(row.alpha - _ALPHA), default=None)
    flagged = None if chosen is None else data.scores[ANOMALY_SCORE] > chosen.threshold
    return _Tables(
        thresholds=thresholds,
        chosen=chosen,
        normal=tables.normal_classes(
            data.normal_classes,
            data.labels,
            data.predicted,
            flagged,
            data.auroc,
            list(data.scores),
        ),
        anomalous=tables.anomaly_classes(
            data.anomaly_classes,
            data.normal_classes,
            data.class_text,
            data.labels,
            data.predicted,
            flagged,
        ),
    )


def _html(data: ReportData, made: _Tables, pictures: Mapping[str, bytes]) -> str:
    return templates.render(
        "report.html",
        data=data,
        scores=list(data.scores),
        anomalies=int((data.labels < 0).sum()),
        pictures={name: templates.base64_text(picture) for name, picture in pictures.items()},
        galleries=_galleries(data),
        mush=_mush(data),
        thresholds=made.thresholds,
        chosen=made.chosen,
        smallest_alpha=1 / (data.calibration_size + 1),
        normal=made.normal,
        anomalous=made.anomalous,
        settings=tables.flatten(dict(data.config)),
        splits=list(data.split_sizes),
        classes=[*data.normal_classes, *data.anomaly_classes],
    )


def _figures(data: ReportData, chosen: Threshold | None) -> dict[str, Figure]:
    is_anomaly = data.labels < 0
    ranked = {name: anomalousness(name, values) for name, values in data.scores.items()}
    drawn = {
        "roc": figures.roc_figure(
            {name: metrics.roc_curve(values, is_anomaly) for name, values in ranked.items()},
            data.auroc[OVERALL],
        ),
    }
    if data.history:  # Not where nothing is trained epoch by epoch.
        drawn["history"] = figures.history_figure(data.history)
    for name, values in data.scores.items():
        marked = chosen.threshold if chosen and name == ANOMALY_SCORE else None
        drawn[f"histogram_{name}"] = figures.histogram_figure(values, is_anomaly, name, marked)
    return drawn


def _galleries(data: ReportData) -> dict[str, list[_Item]]:
    is_anomaly = data.labels < 0
    shown = {}
    for kind, among in (("normal", ~is_anomaly), ("anomalous", is_anomaly)):
        places = tables.first_of_each(data.class_text, among, _SHOWN)
        shown[f"seen_{kind}"] = [
            _item(data, place, data.class_text[place], _below(data, place, kind == "anomalous"))
            for place in places
        ]
    suspicion = data.scores[ANOMALY_SCORE]
    for kind, among, direction in (("missed", is_anomaly, 1), ("alarmed", ~is_anomaly, -1)):
        places = np.flatnonzero(among)
        worst = places[np.argsort(direction * suspicion[places], kind="stable")][:_MISTAKES]
        shown[f"mistakes_{kind}"] = [_item(data, place, _mistake(data, place)) for place in worst]
    return shown


def _mistake(data: ReportData, place: int) -> str:
    if len(data.normal_classes) == 1:
        return str(data.class_text[place])
    seen_as = data.normal_classes[data.predicted[place]]
    return f"{data.class_text[place]}, seen as {seen_as}"


def _item(
    data: ReportData, place: int, caption: str, below: Iterable[tuple[np.ndarray, str]] = ()
) -> _Item:
    pictures = [(data.images[place], caption), *below]
    return _Item(
        [_Picture(templates.base64_text(_png(image)), alt) for image, alt in pictures],
        caption,
        float(data.scores[ANOMALY_SCORE][place]),
    )


def _below(data: ReportData, place: int, with_nearest: bool) -> Iterator[tuple[np.ndarray, str]]:
    """What is shown below the image at `place`, and what it is."""
    if data.anomaly_maps is not None:
        heat_map = overlay(data.images[place], data.anomaly_maps[place])
        yield heat_map, "Heat map of where it is unusual."
    elif data.reconstructions is not None:
        yield data.reconstructions[place], "Its reconstruction."
    if with_nearest and data.nearest_images is not None:
        yield data.nearest_images[place], "The most similar normal image."


def _png(image: np.ndarray) -> bytes:
    """Encodes an image, uint8 or float in [0, 1], shape (H, W, K), K = 1 or 3."""
    if image.dtype != np.uint8:
        image = np.round(255 * image).astype("uint8")
    picture = Image.fromarray(image.squeeze(axis=-1) if image.shape[-1] == 1 else image)
    picture.thumbnail((_PIXELS, _PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()


def _mush(data: ReportData) -> float | None:
    """How much the reconstructions of normal images vary, if that is next to nothing."""
    normal = np.flatnonzero(data.labels >= 0)[:_COMPARED]
    if data.reconstructions is None or len(normal) < 2:
        return None
    varied = tables.variety(data.reconstructions[normal], data.images[normal] / 255)
    return varied if varied < _MUSH else None


def _csv_tables(data: ReportData, made: _Tables) -> dict[str, list[_Row]]:
    """Makes the CSV files: name -> rows, of which the first is the header."""
    return {
        "thresholds": _threshold_rows(made.thresholds),
        "measures": [
            ["score", *next(iter(data.measures.values()))],
            *([name, *values.values()] for name, values in data.measures.items()),
        ],
        "normal_classes": _normal_rows(made.normal, list(data.scores)),
        "anomaly_classes": _anomaly_rows(made.anomalous),
        "images": _image_rows(data),
    }


def _threshold_rows(thresholds: Sequence[Threshold]) -> list[_Row]:
    header = [
        *("alpha", "threshold"),
        *("false_alarm_rate", "low", "high"),
        *("detection_rate", "low", "high"),
    ]
    rows = [
        [
            row.alpha,
            row.threshold,
            row.false_alarms.value,
            *row.false_alarms.interval,
            row.detections.value,
            *row.detections.interval,
        ]
        for row in thresholds
    ]
    return [header, *rows]


def _normal_rows(classes: Sequence[NormalClass], scores: Sequence[str]) -> list[_Row]:
    header = ["class", "images", *(f"auroc_{name}" for name in scores), "accuracy", "false_alarms"]
    rows = [
        [
            row.name,
            row.images,
            *row.auroc.values(),
            row.correct.value,
            row.false_alarms.value if row.false_alarms else "",
        ]
        for row in classes
    ]
    return [header, *rows]


def _anomaly_rows(classes: Sequence[AnomalyClass]) -> list[_Row]:
    header = ["class", "images", "detected", "mistaken_for", "mistaken"]
    rows = [
        [
            row.name,
            row.images,
            row.detections.value if row.detections else "",
            row.mistaken_for,
            row.mistaken.value,
        ]
        for row in classes
    ]
    return [header, *rows]


def _image_rows(data: ReportData) -> list[_Row]:
    rows = zip(
        data.ids,
        data.digests,
        data.class_text,
        (data.labels < 0).astype(int),
        np.array(data.normal_classes)[data.predicted],
        *data.scores.values(),
        strict=True,
    )
    return [["id", "digest", "class", "is_anomaly", "predicted", *data.scores], *rows]
