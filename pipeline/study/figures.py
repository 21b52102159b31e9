"""Makes the tables and figures of studies from their `results.csv`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from components.evaluation.report import figures
from models import detectors
from models.files import write_whole
from models.score_names import ANOMALY_SCORE
from pipeline.study.results import FALSE_RATES, Result, versions

_COSTS = {
    "accuracy": "accuracy on normal classes",
    "images": "training images",
    "seconds": "seconds of training",
    "train_images_per_s": "training images/s",
    "score_images_per_s": "scoring images/s",
}


def write(results: Sequence[Result], output: Path) -> Path:
    """Writes `results.md` and `figures/*.png` for all results.

    There is one section for each data set, protocol and budget. Reconstructions are drawn of the
    cells whose arrays are there.

    Args:
        results: finished cells, as `results.read` gives them.
        output: folder of the studies.

    Returns:
        Path of `results.md`.
    """
    folder = output / "figures"
    folder.mkdir(exist_ok=True)
    machines = sorted({result["machine"] for result in results})
    lines = ["# Results of the study", "", "Machines:", ""]
    lines += [f"{number}. {machine}." for number, machine in enumerate(machines, 1)]
    for (data_set, protocol, epochs, limit), group in grouped(
        results, "data_set", "protocol", "epochs", "limit_per_class"
    ).items():
        name = f"{data_set}-{protocol}-{epochs}-epochs"
        if limit:
            name += f"-{limit}-a-class"
        lines += [
            "",
            f"## {data_set}, {protocol}, {budget(epochs, limit)}",
            "",
            *_table(group),
            "",
            *_costs(group, machines),
        ]
        _save(folder / f"auroc-{name}.png", _bars(group))
        lines += ["", f"![auROC by anomaly and method](figures/auroc-{name}.png)"]
        for anomaly, drawn in grouped(_capsnets(group), "anomaly").items():
            first = min(drawn, key=lambda result: result["seed"])
            ending = f"{name}-{_safe(anomaly[0])}.png"
            _save(folder / f"roc-{ending}", _roc(first))
            arrays = output / "cells" / f"{first['cell']}.npz"
            if arrays.exists():
                _draw_reconstructions(arrays, folder / f"reconstructions-{ending}")
    path = output / "results.md"
    write_whole(path, "\n".join(lines) + "\n")
    return path


def budget(epochs: int, limit: int | None) -> str:
    """Says in words how long a detector was trained."""
    words = f"{epochs} epoch{'s' * (epochs > 1)}"
    return f"{words} of at most {limit:,} images a class" if limit else words


def columns(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Lists the pairs (detector, score) that are compared.

    These are all raw scores of capsule networks, and the calibrated score of each other detector.
    """
    chosen = []
    for name in detectors.names():
        own = [result for result in results if result["detector"] == name]
        detector = detectors.describe(name)
        several = detector.scores if "capsnet" in name else detector.scores[:1]
        chosen += [(name, version) for score in several for version in versions(own, score)]
    return chosen


def measure(results: Iterable[Result], detector: str, score: str) -> tuple[float, float, float]:
    """Computes the auROC of a method, and the ends of what is shown as its uncertainty.

    For several seeds, these are the mean, and the mean plus and minus one standard deviation. For
    one seed, they are the auROC and its 95 % interval. All are NaN if there is no result.
    """
    runs = [
        result["scores"][score]
        for result in results
        if result["detector"] == detector and score in result["scores"]
    ]
    if not runs:
        return (float("nan"),) * 3
    areas = [run["auroc"] for run in runs]
    if len(runs) > 1:
        mean, deviation = float(np.mean(areas)), float(np.std(areas, ddof=1))
        return mean, mean - deviation, mean + deviation
    return areas[0], runs[0]["auroc_low"], runs[0]["auroc_high"]


def _table(group: Sequence[Result]) -> list[str]:
    """Makes a Markdown table with a row for each anomaly, and the mean of these rows.

    The best method of each row is bold.
    """
    methods = columns(group)
    lines = [
        "| anomaly | " + " | ".join(f"{detector} `{score}`" for detector, score in methods) + " |",
        "|---|" + "---:|" * len(methods),
    ]
    rows = []
    for (anomaly,), results in grouped(group, "anomaly").items():
        measured = [measure(results, *method) for method in methods]
        areas = [area for area, _, _ in measured]
        rows.append(areas)
        cells = [
            "–" if np.isnan(area) else f"{_bold(area, areas)} ({low:.3f} to {high:.3f})"
            for area, low, high in measured
        ]
        lines.append(f"| {anomaly} | " + " | ".join(cells) + " |")
    means, deviations = np.mean(rows, axis=0), np.std(rows, axis=0)
    cells = [
        "–" if np.isnan(mean) else f"{_bold(mean, means)} ± {deviation:.3f}"
        for mean, deviation in zip(means, deviations, strict=True)
    ]
    lines.append("| mean ± standard deviation of the rows | " + " | ".join(cells) + " |")
    several = len({result["seed"] for result in group}) > 1
    meaning = (
        "mean minus and plus one standard deviation over the seeds, or for one seed " * several
    )
    return [*lines, "", f"In brackets: {meaning}the 95 % interval of one run, by its test images."]


def _costs(group: Sequence[Result], machines: Sequence[str]) -> list[str]:
    """Makes a Markdown table of the means of `_COSTS`, by detector and number of the machine."""
    lines = [
        f"| detector | machine | {' | '.join(_COSTS.values())} |",
        "|---|" + "---:|" * (1 + len(_COSTS)),
    ]
    for (detector, machine), results in sorted(grouped(group, "detector", "machine").items()):
        accuracy, *others = (np.mean([result[key] for result in results]) for key in _COSTS)
        cells = [str(machines.index(machine) + 1), f"{accuracy:.3f}"]
        cells += [f"{mean:,.0f}" for mean in others]
        lines.append(f"| {detector} | {' | '.join(cells)} |")
    return lines


def _bold(value: float, values: Sequence[float] | np.ndarray) -> str:
    return f"**{value:.3f}**" if value == np.nanmax(values) else f"{value:.3f}"


def _bars(group: Sequence[Result]) -> Figure:
    anomalies = grouped(group, "anomaly")
    return figures.bar_figure(
        [anomaly for (anomaly,) in anomalies],
        {
            f"{detector} {score}": [measure(r, detector, score) for r in anomalies.values()]
            for detector, score in columns(group)
        },
    )


def _roc(result: Result) -> Figure:
    rates = np.array(FALSE_RATES)
    raw = {name: score for name, score in result["scores"].items() if name != ANOMALY_SCORE}
    return figures.roc_figure(
        {name: (rates, np.array(score["roc"])) for name, score in raw.items()},
        {name: score["auroc"] for name, score in raw.items()},
    )


def _draw_reconstructions(arrays: Path, file: Path) -> None:
    """Draws examples, if there are any: on a backbone, CapsNet reconstructs no images."""
    with np.load(arrays) as kept:
        if "texts" not in kept.files:
            return
        captions = [
            f"{text}\n{'anomaly' if is_anomaly else 'normal'}"
            for text, is_anomaly in zip(kept["texts"], kept["shown_is_anomaly"], strict=True)
        ]
        _save(file, figures.stacked_figure([kept["images"], kept["reconstructions"]], captions))


def _capsnets(results: Iterable[Result]) -> list[Result]:
    return [result for result in results if result["detector"] == "capsnet"]


def grouped(results: Iterable[Result], *keys: str) -> dict[tuple, list[Result]]:
    """Groups results by the values of `keys`. Single classes come before sets of classes."""
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(result[key] for key in keys), []).append(result)
    return dict(sorted(groups.items(), key=lambda item: (str(item[0]).count(","), str(item[0]))))


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _save(path: Path, figure: Figure) -> None:
    write_whole(path, figures.png(figure))
