"""Knobs: dataclass fields that users set, by an option, by a variable or in code.

A knob is a field made by `knob(...)`, with its default, help text and range. Its command-line
option and its environment variable follow from the field.
"""

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from models.errors import UserError
from pipeline.parameters import NameValue

PREFIX = "CAPSAD_"


def knob(
    default: Any,
    help: str,
    kind: click.ParamType | type = str,
    *,
    option: str | None = None,
    metavar: str | None = None,
    many: str | None = None,
    variable: bool = True,
) -> Any:
    """A dataclass field that users can set.

    Args:
        default: value of the field.
        help: what users read about it.
        kind: type and range of a value.
        option: name of the option; `None`: the field's name with hyphens.
        metavar: what stands for a value in help texts.
        many: how a variable holds several values, `words` (quoted as in a shell) or `one` (all of
            the text is one value); `None`: the knob has one value.
        variable: whether there is an environment variable.
    """
    metadata = {
        "help": help,
        "kind": click.types.convert_type(kind),
        "option": option,
        "metavar": metavar,
        "many": many,
        "variable": variable,
    }
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Knob:
    """One knob, as options and variables see it."""

    section: str
    """Field of the configuration that holds it; empty: the configuration itself."""
    field: dataclasses.Field

    @property
    def name(self) -> str:
        """Name of the field."""
        return self.field.name

    @property
    def help(self) -> str:
        """What users read about it."""
        return self.field.metadata["help"]

    @property
    def kind(self) -> click.ParamType:
        """Type and range of a value."""
        return self.field.metadata["kind"]

    @property
    def many(self) -> str | None:
        """How a variable holds several values, see `knob`."""
        return self.field.metadata["many"]

    @property
    def option(self) -> str:
        """Name of the command-line option."""
        return self.field.metadata["option"] or f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str | None:
        """Name of the environment variable, if there is one."""
        return PREFIX + self.name.upper() if self.field.metadata["variable"] else None

    def convert(self, value: Any) -> Any:
        """The field's value for a given one, or several, as text or in the field's type.

        Raises:
            UserError: if it is out of range.
        """
        try:
            if not self.many:
                return self.kind.convert(value, None, None)
            items = value.items() if isinstance(value, Mapping) else value
            values = [self.kind.convert(item, None, None) for item in _listed(items)]
        except click.BadParameter as error:
            raise UserError(f"Invalid value: {error.message}", self.name) from None
        return dict(values) if isinstance(self.kind, NameValue) else tuple(values)

    def split(self, text: str) -> Any:
        """What `convert` takes, from the text of a variable."""
        return shlex.split(text) if self.many == "words" else text

    def text(self, value: Any) -> str:
        """The text of a variable for the field's value, which `split` and `convert` undo.

        Raises:
            UserError: if there is none.
        """
        if isinstance(value, Mapping):
            value = [f"{name}={json.dumps(of_name)}" for name, of_name in value.items()]
        if self.many == "words":
            return shlex.join(value)
        if self.many:
            if len(value) > 1 and (unclear := [each for each in value if "," in each]):
                raise UserError(
                    f"Several values of {self.name} become one text with commas between them, in "
                    f"which '{unclear[0]}' would be several: give one value with commas, and "
                    "rename a class whose name has a comma.",
                    self.name,
                )
            return ",".join(value)
        return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _listed(values: Any) -> Any:
    return [values] if isinstance(values, str) else values


def knobs(config_class: type, section: str = "") -> Iterator[Knob]:
    """All knobs of a configuration and of the sections in it."""
    for of_class in dataclasses.fields(config_class):
        if isinstance(of_class.type, type) and dataclasses.is_dataclass(of_class.type):
            yield from knobs(of_class.type, of_class.name)
        elif "help" in of_class.metadata:
            yield Knob(section, of_class)
