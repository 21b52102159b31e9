"""The gates that a model must pass, and their outcomes."""

from collections.abc import Mapping, Sequence

import numpy as np

from models.scores import ANOMALY_SCORE

_GAP = 0.2


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


def gates(gate: Mapping[str, float], auroc: float, blessed: bool) -> list[tuple[str, str]]:
    """Describes each gate and its outcome in words.

    Args:
        gate: `min_auroc` and `max_auroc_drop`, see `pipeline.configs.GateConfig`.
        auroc: auROC of `anomaly_score` on the test images.
        blessed: whether the Evaluator has blessed the model.

    Returns:
        Pairs of gate and outcome.
    """
    passed = auroc >= gate["min_auroc"]
    # If the Evaluator refuses a model that passes the first gate, the second gate has failed.
    unchanged = blessed or not passed
    return [
        (
            f"auROC of {ANOMALY_SCORE} at least {gate['min_auroc']:g}",
            f"{auroc:.4f}: {'passed' if passed else 'failed'}",
        ),
        (
            f"auROC at most {gate['max_auroc_drop']:g} below the last blessed model's",
            "passed or no such model" if unchanged else "failed",
        ),
    ]
