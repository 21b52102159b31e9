"""The verdict on a model: what it must reach, what it reached, and what may be said of it."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tfx.dsl.io import fileio

from components.evaluation.metrics import (
    ACCURACY,
    ACCURACY_LOW,
    AUROC,
    AUROC_HIGH,
    AUROC_LOW,
    GUESSED,
    SPREAD,
)
from models.score_names import ANOMALY_SCORE

FILE = "verdict.json"
_GUESSED = 0.5  # auROC of guessing
_WAIVED = ", waived by your requirement"
_LEAST_SPREAD = 1e-3  # of class probabilities
_LEAST_GAIN = 0.01  # share of the first loss
_GAP = 0.2


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a model must reach to be blessed."""

    min_auroc: float
    """Smallest auROC of `anomaly_score`, at the lower end of its 95 % interval, in [0, 1]."""
    is_stated: bool
    """Whether the user stated `min_auroc`, so that it is a requirement and not only a default."""
    max_auroc_drop: float
    """Largest fall of the auROC below that of the last blessed model, in [0, 1]."""
    tells_classes_apart: bool
    """Whether the detector learns to tell several normal classes apart."""
    compares: bool
    """Whether the last blessed model is looked up."""

    @property
    def is_waived(self) -> bool:
        """Whether the user stated that guessing is enough, so that a trial can be pushed."""
        return self.is_stated and self.min_auroc < _GUESSED


@dataclass(frozen=True)
class Check:
    """One condition of a blessing."""

    condition: str
    outcome: str
    passed: bool
    """A condition that does not apply is passed, and the outcome says why."""


@dataclass(frozen=True)
class Verdict:
    """What is decided about a model."""

    blessed: bool
    headline: str
    """The verdict in one line."""
    reason: str
    """What the headline rests on, in one or two sentences."""
    checks: Sequence[Check]


def judge(
    measured: Mapping[str, float],
    classes: Mapping[str, float],
    training: Mapping[str, Any],
    baseline: float | str,
    gate: Gate,
) -> Verdict:
    """Decides whether a model is blessed.

    Args:
        measured: measures of `anomaly_score` on the test images, see `RankingMetrics`.
        classes: measures of the class probabilities, see `ClassMetrics`.
        training: what the Trainer recorded: `epochs`, the number of finished ones, and `history`.
        baseline: auROC of the last blessed model on the same images, or why there is none.
        gate: what the model must reach.
    """
    checks = [
        _trained(training),
        *_collapsed(measured, classes, gate),
        *_separates(measured, gate),
        *_tells_apart(classes, gate),
        _compared(measured[AUROC], baseline, gate),
    ]
    failed = [check for check in checks if not check.passed]
    reached = f"Its auROC is {_with_interval(measured)}"
    if failed:
        more = len(failed) - 1
        others = f" {more} other condition{'s' * (more > 1)} failed, too." if more else ""
        reason = f"{failed[0].condition}: {failed[0].outcome}.{others}"
        return Verdict(False, "Not blessed: do not use it", reason, checks)
    if gate.is_waived:
        reason = f"{reached}. You required only {gate.min_auroc:g}, which guessing reaches."
        return Verdict(
            True, "Blessed as a trial: it need not be better than guessing", reason, checks
        )
    if gate.is_stated:
        reason = f"{reached}, and you required at least {gate.min_auroc:g}."
        return Verdict(True, "Blessed: fit for use by your requirement", reason, checks)
    reason = (
        f"{reached}. No requirement was stated, so whether that is good enough for your use is for "
        "you to decide; state one with the smallest auROC that you need."
    )
    return Verdict(True, "Blessed: better than guessing", reason, checks)


def read(evaluation_uri: str) -> Verdict:
    """Reads the verdict that the Evaluator wrote into an evaluation."""
    with fileio.open(os.path.join(evaluation_uri, FILE)) as file:
        stored = json.load(file)
    return Verdict(**{**stored, "checks": [Check(**check) for check in stored["checks"]]})


def _trained(training: Mapping[str, Any]) -> Check:
    epochs = training["epochs"]
    condition = "The detector was trained"
    if epochs < 1:
        return Check(condition, "no epoch was finished", False)
    history = training["history"]
    values: list[float] = history.get("loss") or next(iter(history.values()), [])
    outcome = f"{epochs} epoch{'s' * (epochs > 1)}"
    if len(values) < 2:
        return Check(condition, outcome, True)
    fell = values[0] - min(values) > _LEAST_GAIN * abs(values[0])
    outcome += f", loss {values[0]:.4g} in the first and {min(values):.4g} in the best"
    return Check(condition, outcome if fell else f"{outcome}, so it learned nothing", fell)


def _collapsed(
    measured: Mapping[str, float], classes: Mapping[str, float], gate: Gate
) -> Iterator[Check]:
    varies = measured[SPREAD] > 0
    yield Check(
        "The scores of the test images differ",
        "they do" if varies else f"{ANOMALY_SCORE} is the same for all: the detector collapsed",
        varies,
    )
    if gate.tells_classes_apart:
        varies = classes[SPREAD] > _LEAST_SPREAD
        yield Check(
            "Its class probabilities differ from image to image",
            "they do" if varies else "they are the same for all: the detector collapsed",
            varies,
        )


def _separates(measured: Mapping[str, float], gate: Gate) -> Iterator[Check]:
    low, found = measured[AUROC_LOW], _with_interval(measured)
    yield Check(
        f"auROC of {ANOMALY_SCORE} above guessing ({_GUESSED:g}) by more than its uncertainty",
        found + _WAIVED * gate.is_waived,
        low > _GUESSED or gate.is_waived,
    )
    stated = "your requirement" if gate.is_stated else "the default"
    yield Check(
        f"auROC of {ANOMALY_SCORE} at least {gate.min_auroc:g} ({stated}) at the lower end",
        found,
        low >= gate.min_auroc,
    )


def _tells_apart(classes: Mapping[str, float], gate: Gate) -> Iterator[Check]:
    if gate.tells_classes_apart:
        yield Check(
            f"Accuracy on the normal classes above guessing ({classes[GUESSED]:.2g}) by more than "
            "its uncertainty",
            f"{classes[ACCURACY]:.4f}, each class counting the same; at least "
            f"{classes[ACCURACY_LOW]:.4f} with its 95 % interval" + _WAIVED * gate.is_waived,
            classes[ACCURACY_LOW] > classes[GUESSED] or gate.is_waived,
        )


def _compared(auroc: float, baseline: float | str, gate: Gate) -> Check:
    condition = f"auROC at most {gate.max_auroc_drop:g} below the last blessed model's"
    if not gate.compares:
        return Check(condition, "the last blessed model is not looked up on this platform", True)
    if isinstance(baseline, str):
        return Check(condition, baseline, True)
    return Check(
        condition,
        f"{auroc:.4f} against {baseline:.4f}",
        auroc >= baseline - gate.max_auroc_drop,
    )


def _with_interval(measured: Mapping[str, float]) -> str:
    return (
        f"{measured[AUROC]:.4f} (95 % interval {measured[AUROC_LOW]:.4f} to "
        f"{measured[AUROC_HIGH]:.4f})"
    )


def overfitting(history: Mapping[str, Sequence[float]], takes_best: bool) -> list[str]:
    """A sentence if the accuracy on `eval` stays far below that on the training images.

    Args:
        history: measure -> one value for each epoch, as Keras records it.
        takes_best: whether the weights are those of the epoch with the lowest loss on `eval`, and
            not those of the last one.
    """
    name = next((name for name in history if name.endswith("accuracy")), "")
    if f"val_{name}" not in history:
        return []
    epoch = int(np.argmin(history["val_loss"])) if takes_best else -1
    trained, watched = history[name][epoch], history[f"val_{name}"][epoch]
    if trained - watched <= _GAP:
        return []
    return [
        f"The network learned its training images by heart: its accuracy is {trained:.2f} on them, "
        f"but {watched:.2f} on normal images that it was not trained on. More images may help, or "
        "the settings flip, shift, brightness, weight_decay or patience."
    ]
