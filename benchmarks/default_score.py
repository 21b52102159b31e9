"""Candidates for CapsNet's default score, compared on the settings that choose.

    python benchmarks/default_score.py train mnist --data-dir FOLDER --budget screening
    python benchmarks/default_score.py score --budget screening
    python benchmarks/default_score.py tables

See docs/results/protocol.md. `train` trains CapsNet and keeps what the networks say of the images
in runs/default-score; what is there is not trained again. `score` computes all candidates from
that, with constants from normal images alone, writes the auROCs of each term and of the best sums
to docs/results/scores.csv. With `--budget full`, all images are taken. `tables` writes scores.md
from that file and, for the settings that test, from the results of the study.
"""

import argparse
import csv
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from models import metrics
from models.files import whole_folder
from models.sampling import stratified
from pipeline import configs
from pipeline.machine import describe
from pipeline.plan import plan
from pipeline.study import results

Setting = tuple[str, str]  # data set, anomaly

KEPT = Path("runs/default-score")
RESULTS = Path(__file__).parents[1] / "docs" / "results"
TABLE = RESULTS / "scores.csv"
GROUPS: dict[str, tuple[Setting, ...]] = {  # of alike classes
    "footwear": tuple(("fashion_mnist", anomaly) for anomaly in "579"),
    "tops": tuple(("fashion_mnist", anomaly) for anomaly in "02346"),
    "trouser and bag": tuple(("fashion_mnist", anomaly) for anomaly in "18"),
    "digits 0 to 4": tuple(("mnist", anomaly) for anomaly in "01234"),
    "digits 5 to 9": tuple(("mnist", anomaly) for anomaly in "56789"),
}
CHOOSING: dict[str, tuple[Setting, ...]] = {  # choice -> the settings that it goes by
    "first": (
        *(("mnist", anomaly) for anomaly in "0257"),
        *(("fashion_mnist", anomaly) for anomaly in "1368"),
    ),
    "second": tuple(itertools.chain(*GROUPS.values())),
}
BUDGETS = {  # data set -> epochs, then images a class
    "screening": ({"mnist": 3, "fashion_mnist": 5}, 2000),
    "full": ({"mnist": 5, "fashion_mnist": 8}, None),
}
PRIMARY_TYPES = 32
_KNOWN, _USUAL = 8000, 2000  # training images that are stored, and normal images of `eval`
WIDTHS = {  # numbers that describe an image in each space
    "capsules": 144,
    "convolution": 512,
    "primary": 512,
    "both": 1024,
    "primary lengths": 1152,
    "type lengths": 64,
    "patches": 100,
    "pixels": 100,
    "hidden": 1168,
}
REDUCED = {"patches": 4096, "pixels": 784}  # their numbers before principal components are taken
SECOND_PASS = ("hidden primary", "hidden capsules", "hidden, Mahalanobis")  # costs twice PP's time
TOO_SLOW = "twice the time of PP"
SUM, LARGEST = " + ", " or "  # An image is unusual if it is so in this *or* that.
NEAR = 0.002  # Merits that differ by no more are taken as equal.
BEST, SHOWN, FINALISTS = 50, 15, 5  # combinations that are kept, shown, and taken to the final
CHOSEN = "pp + longest minus all others + capsules, neighbours"
# What the study trains: data set, protocol, number of classes held out, number of trainings, the
# least mean auROC that is aimed at, and whether they chose the present score
STUDIED = (
    ("mnist", "hold-out", 1, 10, 0.99, "yes"),
    ("fashion_mnist", "hold-out", 1, 10, 0.86, "yes"),
    ("mnist", "hold-out", 3, 1, 0.99, "no"),
    ("mnist", "open-set-6-4", 4, 5, 0.992, "no"),
)

Values = dict[str, np.ndarray]


class Job(NamedTuple):
    """One training."""

    data_set: str
    anomaly: str
    budget: str

    @property
    def folder(self) -> Path:
        """Where the values of the trained network are kept."""
        return KEPT / "-".join(self)


def train(job: Job, data_dir: str) -> None:
    """Trains, and keeps what the network says of images of `train`, `eval` and `test`."""
    from network_values import Kept, values

    epochs, limit = BUDGETS[job.budget]
    config = configs.override(
        configs.get(job.data_set),
        data_dir=data_dir,
        anomaly=job.anomaly,
        detector="capsnet",
        epochs=epochs[job.data_set],
        limit_per_class=limit,
    )
    planned = plan(config)
    splits = planned.load_splits()
    state = job.folder.with_name(job.folder.name + "-state")
    made = dataclasses.replace(planned.detector, seed=0, backup_dir=str(state))
    settings = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    detector = Kept(**settings)
    train, usual = splits["train"], splits["eval"]
    detector.fit(train.images, train.labels, validation=(usual.images, usual.labels))
    generator = np.random.default_rng(0)
    chosen = stratified(train.labels, _KNOWN, generator)
    rest = generator.permutation(len(usual.labels))[:_USUAL]
    parts = {
        "train": train._replace(images=train.images[chosen], labels=train.labels[chosen]),
        "eval": usual._replace(images=usual.images[rest], labels=usual.labels[rest]),
        "test": splits["test"],
    }
    with whole_folder(job.folder) as folder:
        for name, split in parts.items():
            found = values(detector, split)
            small = {key: value.astype("float16") for key, value in found.items()}
            np.savez(folder / f"{name}.npz", **{**small, "labels": split.labels})


def load(job: Job) -> dict[str, Values]:
    """Split -> what the network says of its images."""
    loaded = {}
    for name in ("train", "eval", "test"):
        with np.load(job.folder / f"{name}.npz") as stored:
            values = {key: stored[key] for key in stored.files}
        loaded[name] = {
            key: value if key == "labels" else value.astype("float32")
            for key, value in values.items()
        }
    return loaded


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scaled to length 1 along the last axis."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


class Reference:
    """What is known of the training images in one space of features.

    Args:
        features: of the training images, (N, D).
        labels: their classes, (N,).
        whole: whether each value is standardised and each vector scaled to length 1 first.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, whole: bool = True):
        self._whole = whole
        self._centre, self._spread = features.mean(axis=0), features.std(axis=0) + 1e-6
        self._known = self._scaled(features)
        means = np.stack([self._known[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
        self._means, self._middle = means, self._known.mean(axis=0)
        self._whitening = _whitening(self._known - means[labels])
        self._whole_whitening = _whitening(self._known - self._middle)

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return unit((features - self._centre) / self._spread) if self._whole else features

    def neighbours(self, features: np.ndarray, rank: int = 5) -> np.ndarray:
        """Distance to the nearest training image but four, after scaling to length 1."""
        near = unit(self._scaled(features)) @ unit(self._known).T
        return np.sqrt(np.maximum(2 - 2 * np.partition(near, -rank, axis=1)[:, -rank], 0))

    def mahalanobis(self, features: np.ndarray) -> np.ndarray:
        """Distance to the nearest class mean with the covariance within classes."""
        white = self._scaled(features) @ self._whitening
        centres = self._means @ self._whitening
        return _squared_distances(white, centres).min(axis=1)

    def relative(self, features: np.ndarray) -> np.ndarray:
        """The same, less the distance to the mean of all (Ren et al. 2021, arXiv 2106.09022)."""
        white = (self._scaled(features) - self._middle) @ self._whole_whitening
        return self.mahalanobis(features) - (white**2).sum(axis=1)


def _whitening(residuals: np.ndarray) -> np.ndarray:
    covariance = np.cov(residuals.T)
    ridge = 1e-3 * np.trace(covariance) / len(covariance)
    return np.linalg.cholesky(np.linalg.inv(covariance + ridge * np.eye(len(covariance))))


def _squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    squares = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    return squares - 2 * points @ centres.T


def terms(known: Values, parts: dict[str, Values]) -> dict[str, Values]:
    """Part -> name of each term -> value (N,) of its images, higher = more anomalous."""
    flat = {"train": known, **parts}
    spaces = {
        "capsules": lambda v: v["capsules"].reshape(len(v["capsules"]), -1),
        "convolution": lambda v: v["convolution"],
        "primary": lambda v: v["primary"],
        "both": lambda v: np.concatenate([v["convolution"], v["primary"]], axis=1),
        "primary lengths": lambda v: v["primary lengths"],
        "type lengths": _type_lengths,
    }
    found: dict[str, Values] = {name: _of_outputs(values) for name, values in parts.items()}
    for space, read in spaces.items():
        reference = Reference(read(known), known["labels"], whole=space != "capsules")
        for name, values in parts.items():
            features = read(values)
            found[name][f"{space}, neighbours"] = reference.neighbours(features)
            found[name][f"{space}, Mahalanobis"] = reference.mahalanobis(features)
            found[name][f"{space}, relative"] = reference.relative(features)
    for space in ("patches", "pixels"):
        reduced = _reduced({name: values[space] for name, values in flat.items()})
        reference = Reference(reduced["train"], known["labels"], whole=False)
        for name in parts:
            found[name][f"{space}, neighbours"] = reference.neighbours(reduced[name])
            found[name][f"{space}, Mahalanobis"] = reference.mahalanobis(reduced[name])
    off = {
        name: np.concatenate(
            [values[f"off {key}"] for key in ("convolution", "primary", "capsules")], axis=1
        )
        for name, values in flat.items()
    }
    nothing = np.zeros(len(known["labels"]), int)
    reference = Reference(off["train"], nothing, whole=False)
    for name in parts:
        found[name]["hidden, Mahalanobis"] = reference.mahalanobis(off[name])
    return found


def _type_lengths(values: Values) -> np.ndarray:
    """Mean and deviation over positions of the lengths of each type of primary capsules."""
    lengths = values["primary lengths"].reshape(len(values["capsules"]), -1, PRIMARY_TYPES)
    return np.concatenate([lengths.mean(axis=1), lengths.std(axis=1)], axis=1)


def _of_outputs(values: Values) -> Values:
    lengths = np.sort(np.linalg.norm(values["capsules"], axis=-1), axis=1)
    return {
        "pp": -lengths[:, -1],
        "re": values["errors"],
        "longest minus all others": lengths[:, :-1].sum(axis=1) - lengths[:, -1],
        "hidden convolution": values["hidden"][:, 0],
        "hidden primary": values["hidden"][:, 1],
        "hidden capsules": values["hidden"][:, 2],
    }


def _reduced(features: dict[str, np.ndarray], count: int = 100) -> dict[str, np.ndarray]:
    """The first principal components."""
    from sklearn.decomposition import PCA

    reduction = PCA(count, svd_solver="randomized", random_state=0).fit(features["train"])
    return {name: reduction.transform(values) for name, values in features.items()}


def standardised(values: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """By median and 0.9 quantile of normal images."""
    middle, upper = np.quantile(usual, [0.5, 0.9])
    return (values - middle) / max(upper - middle, 1e-6)


def candidates(job: Job, largest: bool) -> dict[str, float]:
    """Name of each term, sum and largest of two or three terms -> auROC on `test`."""
    parts = load(job)
    known = parts.pop("train")
    found = terms(known, parts)
    is_anomaly = parts["test"]["labels"] < 0
    units = {
        name: standardised(values, found["eval"][name]) for name, values in found["test"].items()
    }
    ways = {SUM: np.sum, LARGEST: np.max} if largest else {SUM: np.sum}
    areas = {name: metrics.auroc(values, is_anomaly) for name, values in units.items()}
    for count in (2, 3):
        for names in itertools.combinations(units, count):
            values = np.stack([units[name] for name in names])
            for sign, way in ways.items():
                areas[sign.join(names)] = metrics.auroc(way(values, axis=0), is_anomaly)
    return areas


class Candidate(NamedTuple):
    """How a term or a combination of terms did."""

    score: str
    areas: dict[Setting, float]  # auROCs
    regrets: dict[Setting, float]  # differences to the better of PP and RE
    machine: str

    def on(self, settings: Iterable[Setting]) -> "Candidate":
        """How it did on some of its settings."""
        areas, regrets = ({s: of[s] for s in settings} for of in (self.areas, self.regrets))
        return self._replace(areas=areas, regrets=regrets)

    @property
    def means(self) -> dict[str, float]:
        """Mean auROC on each data set."""
        names = dict.fromkeys(data_set for data_set, _ in self.areas)
        return {
            name: float(np.mean([area for (of, _), area in self.areas.items() if of == name]))
            for name in names
        }

    @property
    def worst(self) -> float:
        """The least difference to the better of PP and RE."""
        return min(self.regrets.values())

    @property
    def merit(self) -> float:
        """What the choice goes by."""
        return float(np.mean(list(self.means.values()))) + min(self.worst, 0) / 2

    @property
    def terms(self) -> list[str]:
        """Names of the terms."""
        return self.score.replace(LARGEST, SUM).split(SUM)

    @property
    def fast(self) -> bool:
        """Whether scoring takes at most 1.5 times as long as that of PP."""
        return not set(self.terms) & set(SECOND_PASS)

    @property
    def stored(self) -> int:
        """Count of numbers that scoring needs besides the network."""
        return sum(map(_stored, self.terms))


def _stored(term: str) -> int:
    space, _, distance = term.partition(", ")
    if not distance:
        return 0
    width = WIDTHS[space]
    own = {"neighbours": _KNOWN * width, "Mahalanobis": width**2, "relative": 2 * width**2}
    return own[distance] + REDUCED.get(space, 0) * width


def compared(areas: dict[str, dict[Setting, float]], machine: str) -> list[Candidate]:
    """Every candidate, the best first, from its auROC on each setting."""
    best = {s: max(areas["pp"][s], areas["re"][s]) for s in areas["pp"]}
    made = [
        Candidate(score, own, {s: own[s] - best[s] for s in best}, machine)
        for score, own in areas.items()
    ]
    return sorted(made, key=lambda one: one.merit, reverse=True)


def finalists(screened: list[Candidate]) -> list[str]:
    """The best of the screening that are fast enough."""
    return [one.score for one in screened if one.fast][:FINALISTS]


def choose(made: Iterable[Candidate]) -> Candidate:
    """The rule of the second choice: the simplest of those that are fast and near the best."""
    fast = [one for one in made if one.fast]
    best = max(one.merit for one in fast)
    near = [one for one in fast if one.merit >= best - NEAR]
    return min(near, key=lambda one: (len(one.terms), one.stored, -one.merit))


def folds() -> Iterator[tuple[str, list[Setting]]]:
    """Each group of alike classes, and the settings of all others."""
    for name, own in GROUPS.items():
        yield name, [s for s in CHOOSING["second"] if s not in own]


def kept(made: list[Candidate], choice: str, always: list[str]) -> list[Candidate]:
    """Each single term, the best combinations, and what a choice needs, the best first."""
    combined = [one for one in made if len(one.terms) > 1]
    wanted = {*always, *(one.score for one in combined[:BEST])}
    if choice == "second":
        for settings in (CHOOSING["second"], *(rest for _, rest in folds())):
            there = [one.on(settings) for one in made]
            best = max((one for one in there if one.fast), key=lambda one: one.merit)
            wanted |= {best.score, choose(there).score}
    return [one for one in made if len(one.terms) == 1 or one.score in wanted]


def read_table() -> dict[tuple[str, str], list[Candidate]]:
    """Choice and budget -> what was kept of it before."""
    found: dict[tuple[str, str], dict[str, dict[Setting, float]]] = {}
    machines = {}
    if TABLE.exists():
        with TABLE.open() as file:
            for row in csv.DictReader(file):
                run = row["choice"], row["budget"]
                own = found.setdefault(run, {}).setdefault(row["score"], {})
                own[row["data_set"], row["anomaly"]] = float(row["auroc"])
                machines[run] = row["machine"]
    return {run: compared(areas, machines[run]) for run, areas in found.items()}


def write_table(found: dict[tuple[str, str], list[Candidate]]) -> None:
    """Writes a row for each kept candidate and setting."""
    names = ("choice", "budget", "score", "data_set", "anomaly", "auroc", "machine")
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for run, made in found.items():
            for one in made:
                for setting, area in one.areas.items():
                    writer.writerow([*run, one.score, *setting, f"{area:.4f}", one.machine])


def document(found: dict[tuple[str, str], list[Candidate]]) -> Iterator[str]:
    """Lines of scores.md."""
    yield from (
        "# Candidates for CapsNet's default score",
        "",
        "    python benchmarks/default_score.py train mnist --data-dir DIR --budget screening",
        "    python benchmarks/default_score.py train fashion_mnist --data-dir DIR "
        "--budget screening",
        "    python benchmarks/default_score.py score --budget screening",
        "    python benchmarks/default_score.py tables",
        "",
        "The [protocol](protocol.md) says which settings choose, and what the merit is. Constants",
        "come from normal images alone. A combination is of terms that are each standardised on",
        "normal images of `eval`: *a + b* is their sum, *a or b* the largest of them. `worst` is",
        "the least difference to the better of PP and RE on any setting.",
        "The auROCs by setting, and those of more combinations, are in [scores.csv](scores.csv).",
        "",
        "What the terms are: *longest minus all others* adds up the lengths of the other class",
        "capsules and takes away the longest. *Neighbours* is the distance to the fifth nearest of",
        "8,000 training images at unit length, *Mahalanobis* that to the nearest class mean,",
        "*relative* the same less the distance to the mean of all (arXiv 2106.09022). They are",
        "measured between the poses of all class *capsules*; means and deviations of the first",
        "*convolution*, of the *primary* capsules, or of *both*; lengths of the primary capsules;",
        "mean and deviation of the *lengths* of each *type* of them;",
        "*patches* of the first convolution, pooled to 4x4 places; and 100 principal components of",
        "the *pixels*. *Hidden* is RaPP (Kim et al. 2020): the difference of an image and its",
        "reconstruction in the activations of a layer.",
    )
    for choice, settings in CHOOSING.items():
        there = {budget: made for (of, budget), made in found.items() if of == choice}
        if not there:
            continue
        yield from ("", f"## The {choice} choice", "")
        which = "Fashion-MNIST Trouser, Dress, Shirt, Bag and MNIST 0, 2, 5, 7 choose."
        yield which if choice == "first" else f"All {len(settings)} single classes choose."
        yield from sorted({f"{one.machine}." for made in there.values() for one in made})
        for budget, made in there.items():
            yield from _run(budget, made)
        yield from _final(there) if choice == "first" else _cross_validated(there["screening"])
    yield from ("", "## The present score at the full budget", "")
    yield "From the [study](study/results.md). The mean of several seeds is taken first."
    yield ""
    yield "| settings | they chose | run | `conformity` | aim | `pp` | `re` | worst | where |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---|"
    yield from _studied()


def _run(budget: str, made: list[Candidate]) -> Iterator[str]:
    epochs, limit = BUDGETS[budget]
    images = f"{limit:,} images a class" if limit else "all training images"
    times = ", ".join(f"{count} epochs on {name}" for name, count in epochs.items())
    yield from ("", f"### {budget.capitalize()}: {images}, {times}, seed 0", "")
    yield from _table([one for one in made if len(one.terms) == 1], "single terms")
    yield ""
    combined = [one for one in made if len(one.terms) > 1]
    yield from _table(combined[:SHOWN], "the best combinations of two and three terms")


def _final(there: dict[str, list[Candidate]]) -> Iterator[str]:
    chosen = finalists(there["screening"])
    yield from ("", "### The final: the five best of the screening, at the full budget", "")
    yield from _table([one for one in there["full"] if one.score in chosen], "finalist")
    yield from (
        "",
        f"*{CHOSEN}* was chosen.",
        "By the rules of the protocol it wins: its merit is within 0.002 of the best, it has",
        "as many terms, and it stores least. Some sums that were not among the five are better",
        "here. To choose one of them would be hindsight.",
    )


def _cross_validated(made: list[Candidate]) -> Iterator[str]:
    """What the rule chooses without each group, and how that does on the group."""
    by_name = {one.score: one for one in made}
    yield from ("", "### Cross-validated", "")
    yield from (
        "For each group, the rule chooses on all others. Mean auROC over the classes of the group,",
        "and the least difference to the better of PP and RE on one of them.",
        "",
        "| left out | chosen on the others | mean | worst | PP, mean | RE, mean | first choice "
        "| its worst |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    )
    measured: list[Candidate] = []
    for name, rest in folds():
        score = choose(one.on(rest) for one in made).score
        own, pp, re, first = (by_name[key].on(GROUPS[name]) for key in (score, "pp", "re", CHOSEN))
        measured.append(own)
        mean, pp_mean, re_mean, first_mean = (_mean(one) for one in (own, pp, re, first))
        yield (
            f"| {name} | {score} | {mean:.3f} | {own.worst:+.3f} | {pp_mean:.3f} | {re_mean:.3f} | "
            f"{first_mean:.3f} | {first.worst:+.3f} |"
        )
    whole = measured[0]._replace(
        areas={s: area for one in measured for s, area in one.areas.items()},
        regrets={s: regret for one in measured for s, regret in one.regrets.items()},
    )
    yield ""
    for title, one in (
        ("Cross-validated", whole),
        ("PP", by_name["pp"]),
        ("RE", by_name["re"]),
        ("The first choice", by_name[CHOSEN]),
        (f"*{choose(made).score}*, which the rule chooses on all", choose(made)),
    ):
        means = ", ".join(f"{mean:.3f} on {name}" for name, mean in one.means.items())
        yield f"* {title}: mean {means}; worst {one.worst:+.3f}."
    yield ""
    yield "What was built of it is a little different; the [protocol](protocol.md) says why."


def _mean(one: Candidate) -> float:
    return float(np.mean(list(one.areas.values())))


def _table(made: list[Candidate], title: str) -> Iterator[str]:
    data_sets = ("mnist", "fashion_mnist")
    heads = " | ".join(f"{name}, mean" for name in data_sets)
    yield f"| {title} | {heads} | worst | merit | |"
    yield "|---|---:|---:|---:|---:|---|"
    for one in made:
        means = " | ".join(f"{one.means[name]:.3f}" for name in data_sets)
        cells = f"{one.score} | {means} | {one.worst:+.3f} | {one.merit:.3f}"
        yield f"| {cells} | {'' if one.fast else TOO_SLOW} |"


def _studied() -> Iterator[str]:
    """Rows of the table of what the study says of the present score, as far as it does."""
    found = [
        result
        for result in results.read(RESULTS / "study")
        if result["detector"] == "capsnet"
        and result["limit_per_class"] is None
        and "conformity" in result["scores"]
    ]
    for data_set, protocol, held_out, trainings, aim, chose in STUDIED:
        areas: dict[str, list[list[float]]] = {}
        for result in found:
            setting = result["data_set"], result["protocol"], result["epochs"]
            if setting != (data_set, protocol, BUDGETS["full"][0][data_set]):
                continue
            if len(result["anomaly"].split(",")) == held_out:
                scores = [result["scores"][name]["auroc"] for name in ("conformity", "pp", "re")]
                areas.setdefault(result["anomaly"], []).append(scores)
        if not areas:
            continue
        means = {anomaly: np.mean(runs, axis=0) for anomaly, runs in areas.items()}
        behind = {anomaly: own - max(pp, re) for anomaly, (own, pp, re) in means.items()}
        worst = min(behind, key=behind.__getitem__)
        conformity, pp, re = np.mean(list(means.values()), axis=0)
        yield (
            f"| {data_set}, {protocol} | {chose} | {len(areas)} of {trainings} | {conformity:.4f} "
            f"| {aim:.3f} | {pp:.4f} | {re:.4f} | {behind[worst]:+.4f} | {worst} |"
        )


def main() -> None:
    """Trains or scores what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("data_set", choices=BUDGETS["full"][0])
    training.add_argument("--data-dir", help="folder of the data set's files")
    training.add_argument("--anomaly", action="append", help="one of them; can be repeated")
    scoring = commands.add_parser("score")
    scoring.add_argument("--choice", choices=CHOOSING, default="second")
    commands.add_parser("tables")
    for command in (training, scoring):
        command.add_argument("--budget", choices=BUDGETS, default="screening")
    arguments = parser.parse_args()

    if arguments.command == "train":
        for anomaly in arguments.anomaly or "0123456789":
            job = Job(arguments.data_set, anomaly, arguments.budget)
            if not job.folder.exists():
                started = time.monotonic()
                train(job, arguments.data_dir)
                print(*job, f"{time.monotonic() - started:.0f} s", flush=True)
        return
    if arguments.command == "tables":
        (RESULTS / "scores.md").write_text("\n".join(document(read_table())) + "\n")
        return
    run = arguments.choice, arguments.budget
    areas: dict[str, dict[Setting, float]] = {}
    for setting in CHOOSING[arguments.choice]:
        job = Job(*setting, arguments.budget)
        if not job.folder.exists():
            sys.exit(f"There is no {job.folder}: first train all settings that choose.")
        found = candidates(job, largest=arguments.choice == "second")
        for score, area in found.items():
            areas.setdefault(score, {})[setting] = area
        print(*job, {name: round(found[name], 4) for name in ("pp", "re")}, flush=True)
    before = read_table()
    # The table of the second choice compares with the first one.
    always = [CHOSEN, *finalists(before.get((arguments.choice, "screening"), []))]
    made = kept(compared(areas, describe()), arguments.choice, always)
    write_table(before | {run: made})


if __name__ == "__main__":
    main()
