"""Types of values that users give, in addition to those of click."""

import json
import math
import re
from typing import Any

import click

_LARGEST = 8192  # An image of this height and width takes 200 MB.


class ImageSize(click.ParamType):
    """A size such as `28` or `28x32`: a pair (height, width) of whole numbers."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Turns a text, a number or a pair into the pair."""
        if isinstance(value, tuple | list):
            value = "x".join(map(str, value))
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(value).strip())
        size = match and (int(match[1]), int(match[2] or match[1]))
        if not size or min(size) < 1 or max(size) > _LARGEST:
            self.fail(
                f"'{value}' is not a size of 1 to {_LARGEST} pixels such as 28 or 28x32.",
                param,
                ctx,
            )
        return size


class FiniteRange(click.FloatRange):
    """A finite number within a range. NaN passes every comparison, so it is refused by itself."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Turns a text into the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class NameValue(click.ParamType):
    """A pair of the form `NAME=VALUE`. A value that is JSON is read as JSON, else it is a text."""

    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        """Turns a text into the pair, and leaves a pair as it is."""
        if isinstance(value, tuple):
            return value
        name, separator, text = value.partition("=")
        if not separator or not name:
            self.fail(f"'{value}' is not of the form NAME=VALUE.", param, ctx)
        try:
            return name, json.loads(text)
        except json.JSONDecodeError:
            return name, text
