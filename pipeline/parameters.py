"""Types of values that users give, in addition to those of click."""

import json
import math
import os
import re
import tempfile
from pathlib import Path
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


class OutputFolder(click.ParamType):
    """A folder that is there or can be made, and can be written, which is checked at once."""

    name = "folder"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Returns the path, with `~` expanded."""
        value = os.path.expanduser(value)
        nearest = Path(os.path.abspath(value))
        while not os.path.lexists(nearest):
            nearest = nearest.parent
        if not nearest.is_dir():
            self.fail(f"{nearest} is no folder: give another path.", param, ctx)
        try:
            tempfile.TemporaryFile(dir=nearest).close()
        except OSError as error:
            self.fail(f"{nearest} cannot be written ({error.strerror}).", param, ctx)
        return value


class OutputFile(OutputFolder):
    """A file that can be written, or a pipe or device, which is checked at once."""

    name = "file"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Returns the path, with `~` expanded."""
        value = os.path.expanduser(value)
        path = Path(value)
        if path.is_dir():
            self.fail(f"{value} is a folder: give a file.", param, ctx)
        if path.exists() and not path.is_file():
            if not os.access(path, os.W_OK):
                self.fail(f"{value} cannot be written: give another file.", param, ctx)
            return value
        if not path.absolute().parent.exists():
            self.fail(f"The folder {path.parent} does not exist: make it first.", param, ctx)
        super().convert(path.absolute().parent, param, ctx)
        return value


class Pair(NameValue):
    """A pair of texts of the form `NAME=VALUE`.

    Args:
        names: regular expression of the name.
        values: regular expression of the value.
        example: a pair as users may give it.
    """

    def __init__(self, names: str, values: str, example: str):
        self._form = re.compile(f"({names})=({values})", re.ASCII | re.DOTALL)
        self._example = example

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        """Turns a text into the pair, and leaves a pair as it is."""
        if isinstance(value, tuple):
            return value
        match = self._form.fullmatch(value)
        if not match:
            self.fail(f"'{value}' is not of the form {self._example}.", param, ctx)
        return match[1], match[2]


class ForComponent(NameValue):
    """A positive number for one component, `Trainer=8`, or for all of them, `8`.

    It is a pair of the component's name, which is empty for all of them, and the number.
    """

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        """Turns a text into the pair, and leaves a pair as it is."""
        if isinstance(value, tuple):
            return value
        component, separator, number = value.rpartition("=")
        if separator and not component:
            self.fail(f"'{value}' is not of the form NUMBER or COMPONENT=NUMBER.", param, ctx)
        return component, FiniteRange(0, min_open=True).convert(number, param, ctx)


class Matching(click.ParamType):
    """A text of a given form.

    Args:
        form: regular expression of the whole text.
        meaning: what the text must be, for the message.
    """

    name = "text"

    def __init__(self, form: str, meaning: str):
        self.form = re.compile(form, re.ASCII)
        self._meaning = meaning

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Returns the text as it is given."""
        if not self.form.fullmatch(value):
            self.fail(f"'{value}' is not {self._meaning}.", param, ctx)
        return value
