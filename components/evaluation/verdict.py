"""What a model had to reach, and whether it did."""

from collections.abc import Mapping

from models.scores import ANOMALY_SCORE


def gates(gate: Mapping[str, float], auroc: float, blessed: bool) -> list[tuple[str, str]]:
    """Each gate with its outcome, in words.

    Args:
        gate: `min_auroc` and `max_auroc_drop`, see `pipeline.configs.GateConfig`.
        auroc: auROC of `anomaly_score` on the test images.
        blessed: whether the Evaluator has blessed the model.
    """
    passed = auroc >= gate["min_auroc"]
    # Whatever else the Evaluator refuses is the comparison with the model blessed before.
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
