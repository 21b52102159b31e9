"""The option --json and what it prints: one line with one object, see docs/json.md."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

VERSION = 1
"""It rises when a field goes or means something else. New fields do not change it."""

json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the result as one line of JSON, and nothing else on standard output.",
)


def print_json(command: str, **found: Any) -> None:
    """Prints the result of a command.

    Args:
        command: name of the command.
        **found: name of a field -> its value: plain values, NumPy's, paths and dataclasses, also
            nested. NaN and infinity become null, because JSON has none.
    """
    schema = {"schema": f"capsad-{command}-{VERSION}"}
    click.echo(json.dumps({**schema, **_plain(found)}, allow_nan=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
