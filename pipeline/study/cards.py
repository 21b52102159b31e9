"""Model cards: for each detector, data set, protocol and budget, what was measured and its limits.

Reference:
    Mitchell et al. 2019, Model cards for model reporting, arXiv 1810.03993.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from models import detectors
from models.files import write_whole
from pipeline.study.figures import budget, grouped, measure
from pipeline.study.results import Result, versions

_WEAK = 0.8  # auROC below which an anomaly is said to be found badly
_BETTER = 0.02  # difference of auROC from which another score is named as better
_KEYS = ("data_set", "protocol", "detector", "epochs", "limit_per_class")


def write(results: Sequence[Result], folder: Path) -> int:
    """Writes a card for each configuration into `folder`, with an index, `README.md`.

    Args:
        results: finished cells, as `results.read` gives them.
        folder: folder of the cards, which is created.

    Returns:
        The number of cards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = ["# Model cards", "", "One card for each configuration of a study. Means are over the"]
    index += ["anomalies that were tried: compare them only where these are the same.", ""]
    index += ["| detector | data | protocol | budget | anomalies | mean auROC |"]
    index += ["|---|---|---|---|---:|---:|"]
    groups = grouped(results, *_KEYS)
    for (data_set, protocol, name, epochs, limit), everything in groups.items():
        score = _score(everything)
        group = [result for result in everything if score in result["scores"]]
        file = f"{data_set}-{protocol}-{name}-{epochs}-epochs{f'-{limit}-a-class' * bool(limit)}.md"
        write_whole(folder / file, "\n".join(_card(group)) + "\n")
        areas = [area for _, area, _, _ in _areas(group)]
        cells = [f"[{name}]({file})", data_set, protocol, budget(epochs, limit), str(len(areas))]
        index.append(f"| {' | '.join(cells)} | {np.mean(areas):.3f} |")
    write_whole(folder / "README.md", "\n".join(index) + "\n")
    return len(groups)


def _card(group: Sequence[Result]) -> Iterator[str]:
    first = group[0]
    name, data_set, protocol = (first[key] for key in ("detector", "data_set", "protocol"))
    detector, score = detectors.describe(name), _score(group)
    seeds = sorted({result["seed"] for result in group})
    yield f"# {name} on {data_set}, {protocol}, {budget(first['epochs'], first['limit_per_class'])}"
    yield ""
    yield f"{detector.title} ({detector.reference}). Each row of the table is a model of its own:"
    yield f"the classes named were the anomalies, and all others of {data_set} were normal. A seed"
    yield "sets the splits and the training."
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| score | `{score}`, calibrated to `anomaly_score` |"
    yield f"| training | {_mean(group, 'images'):,.0f} images, {_mean(group, 'seconds'):,.0f} s |"
    yield f"| seeds | {', '.join(map(str, seeds))} |"
    yield f"| settings | {'; '.join(sorted({_settings(result) for result in group}))} |"
    yield f"| code | {'; '.join(sorted({result['code'] or 'not recorded' for result in group}))} |"
    yield f"| machine | {'; '.join(sorted({result['machine'] for result in group}))} |"
    yield ""
    yield f"    {_command(first, seeds)}"
    yield ""
    yield "## Results"
    yield ""
    yield "| anomaly | auROC | FPR at 95 % TPR | false alarms at alpha 0.05 | at 0.01 | accuracy |"
    yield "|---|---:|---:|---:|---:|---:|"
    for results, area, low, high in _areas(group):
        rate = np.mean([r["scores"][score]["fpr_at_95_tpr"] for r in results])
        cells = [f"{area:.3f} ({low:.3f} to {high:.3f})", f"{rate:.3f}"]
        for key in ("false_alarms_at_0.05", "false_alarms_at_0.01", "accuracy"):
            cells.append("–" if results[0][key] is None else f"{_mean(results, key):.3f}")
        yield f"| {results[0]['anomaly']} | {' | '.join(cells)} |"
    yield ""
    several = "mean minus and plus one standard deviation over the seeds"
    single = "the 95 % interval of one run, by its test images"
    yield f"In brackets: {several if len(seeds) > 1 else single}. False alarms are the share of"
    yield "normal test images that are flagged; alpha is what is promised, on average."
    yield ""
    yield "## Limits"
    yield ""
    yield from _limits(group)


def _limits(group: Sequence[Result]) -> Iterator[str]:
    detector = detectors.describe(group[0]["detector"])
    measured = _areas(group)
    areas = {results[0]["anomaly"]: area for results, area, _, _ in measured}
    weak = [f"{anomaly} ({area:.2f})" for anomaly, area in areas.items() if area < _WEAK]
    if weak:
        yield f"* It finds some anomalies badly (auROC below {_WEAK}): {', '.join(weak)}."
    for score in detector.scores:
        better = []
        for results, area, _, _ in measured:
            other = measure(results, detector.name, score)[0]
            if other - area >= _BETTER:
                better.append(f"{results[0]['anomaly']} ({other:.2f} against {area:.2f})")
        if better:
            yield f"* The score `{score}` is better for {', '.join(better)}."
    calibrated = _score(group)
    rates = [
        np.mean([r["scores"][calibrated]["fpr_at_95_tpr"] for r in results])
        for results, *_ in measured
    ]
    yield (
        f"* To find 95 % of the anomalies, {min(rates):.0%} to {max(rates):.0%} of the normal "
        "images would be flagged. Do not use it where a missed anomaly does harm and nobody looks "
        "at the rest."
    )
    if len({result["seed"] for result in group}) == 1:
        yield "* One seed was trained, so nothing is said of how much trainings differ."
    yield (
        f"* All of this is about {group[0]['data_set']} and its own test images. It says nothing "
        "about other images: train a model on them, and read its report. "
        "`docs/calibration.md` says what the false-alarm rate promises."
    )


def _areas(group: Sequence[Result]) -> list[tuple[Sequence[Result], float, float, float]]:
    """Results of each anomaly, and auROC of the calibrated score with its uncertainty."""
    method = group[0]["detector"], _score(group)
    return [(results, *measure(results, *method)) for results in grouped(group, "anomaly").values()]


def _score(group: Sequence[Result]) -> str:
    """The score that is calibrated, in the latest version that there are results of."""
    return versions(group, detectors.describe(group[0]["detector"]).scores[0])[0]


def _command(first: Result, seeds: Sequence[int]) -> str:
    parts = ["capsad", "study", first["data_set"], "--detector", first["detector"]]
    parts += ["--epochs", str(first["epochs"])]
    if first["limit_per_class"]:
        parts += ["--limit-per-class", str(first["limit_per_class"])]
    if first["protocol"] != "hold-out":
        parts += ["--protocol", first["protocol"]]
    for seed in seeds:
        parts += ["--seed", str(seed)]
    return shlex.join(parts)


def _mean(results: Sequence[Result], key: str) -> float:
    return float(np.mean([result[key] for result in results]))


def _settings(result: Result) -> str:
    own = [f"{name} = {json.dumps(value)}" for name, value in (result["settings"] or {}).items()]
    return ", ".join(own) or "as by default"
