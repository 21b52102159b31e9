"""The gates that a model must pass, and their outcomes."""

from collections.abc import Mapping

from models.scores import ANOMALY_SCORE


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
