"""Settings of detectors: their defaults, what users read about them, and their ranges."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from models.errors import UserError

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "tuple[int, ...]": "whole numbers",
    "tuple[int, int]": "two whole numbers",
}


def setting(
    default: Any,
    description: str,
    *,
    least: float | None = None,
    most: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """Makes a dataclass field whose values are checked when a detector is made.

    Args:
        default: its default.
        description: the description that users read.
        least: smallest number. `None`: 1 for whole numbers, and for others all that are above 0.
        most: largest number.
        choices: the texts that are allowed, if not all are.
    """
    metadata = {"description": description, "least": least, "most": most, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def score_setting(scores: tuple[str, ...]) -> Any:
    """Makes the field `calibrated_score` of a detector with several `scores`."""
    description = f"Score that `anomaly_score` calibrates: {_listed(scores)}."
    return setting(scores[0], description, choices=scores)


def check_settings(detector: Any) -> None:
    """Checks types and ranges of the fields of a detector.

    Raises:
        UserError: naming the first one that does not fit.
    """
    for field in dataclasses.fields(detector):
        value = getattr(detector, field.name)
        kind = str(field.type).removesuffix(" | None")
        is_optional = kind != field.type
        if value is None and is_optional:
            continue
        if not (_has_type(kind, value) and _is_within(field, kind, value)):
            wanted = _described(field, kind) + (", or null" if is_optional else "")
            raise UserError(f"{field.name} must be {wanted}, not {value!r}.", field.name)


def _has_type(kind: str, value: Any) -> bool:
    if kind == "float":
        return _has_type("int", value) or (isinstance(value, float) and math.isfinite(value))
    if kind.startswith("tuple"):
        count = 2 if kind == "tuple[int, int]" else None
        return (
            isinstance(value, tuple | list)
            and len(value) > 0
            and count in (None, len(value))
            and all(_has_type("int", item) for item in value)
        )
    types = {"int": int, "bool": bool, "str": str}
    return isinstance(value, types[kind]) and (kind == "bool" or not isinstance(value, bool))


def _is_within(field: dataclasses.Field, kind: str, value: Any) -> bool:
    least, most, choices = (field.metadata[key] for key in ("least", "most", "choices"))
    if kind in ("bool", "str"):
        return not choices or value in choices
    for number in value if isinstance(value, tuple | list) else (value,):
        enough = number >= (1 if least is None else least)
        if least is None and kind == "float":
            enough = number > 0
        if not enough or number > most:
            return False
    return True


def _described(field: dataclasses.Field, kind: str) -> str:
    """The type and the range in words."""
    least, most, choices = (field.metadata[key] for key in ("least", "most", "choices"))
    if choices:
        return _listed(choices)
    if kind in ("bool", "str"):
        return _KINDS[kind]
    from_ = f" of at least {1 if least is None else least:g}"
    if least is None and kind == "float":
        from_ = " above 0"
    to = f" and at most {most:g}" if most < math.inf else ""
    return f"{_KINDS[kind]}{from_}{to}" + ", such as [28, 28]" * kind.startswith("tuple")


def _listed(texts: Sequence[str]) -> str:
    """Alternatives in words: a, b or c."""
    return " or ".join((", ".join(texts[:-1]), texts[-1]))
