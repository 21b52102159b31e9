"""The options of the commands: those that are knobs, and how help and errors show them."""

import sys
from dataclasses import MISSING
from typing import Any

import click

from models.errors import UserError
from pipeline import configs
from pipeline.configs import Knob

_GROUPS = {
    "data": "Data",
    "training": "Training",
    "gate": "Gates that a model must pass",
    "trainer": "Resources of the Trainer",
    "": "Run",
}


class KnobOption(click.Option):
    """The option of a knob. Its variable is read by `configs`, as for every other runner."""

    def __init__(self, knob: Knob):
        is_switch = isinstance(knob.kind, click.types.BoolParamType)
        name = f"{knob.option}/--no-{knob.option.removeprefix('--')}" if is_switch else knob.option
        default = None if knob.field.default is MISSING else knob.field.default
        shown = "" if default in (None, (), "") or "[default" in knob.help else _shown(default)
        variable = f"  [{knob.variable}]" if knob.variable else ""
        super().__init__(
            [name, knob.name],
            type=None if is_switch else knob.kind,
            multiple=bool(knob.many),
            metavar=knob.field.metadata["metavar"],
            help=f"{knob.help}{shown}{variable}",
            default=None,  # Not given: the named pipeline decides.
        )
        self.group = _GROUPS[knob.section]
        self.variable = knob.variable


class Command(click.Command):
    """A command whose help groups the knobs, and whose bad input is one line and exit code 2."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options, the knobs in groups by what they are about."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for name in sorted(groups, key=lambda name: name == "Options"):
            with formatter.section(name):
                formatter.write_dl(groups[name])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        for warning in configs.unknown_variables():
            click.echo(f"Warning: {warning}", err=True)
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"Error: {error}{self._remedy(error)}", err=True)
            sys.exit(2)

    def _remedy(self, error: UserError) -> str:
        """The options, and their variables, that set what an error is about."""
        options = {
            option.name: option.opts[0]
            + (f" ({option.variable})" if getattr(option, "variable", None) else "")
            for option in self.params
        }
        others = "--set {}=..." if "settings" in options else ""
        named = [options.get(name, others.format(name)) for name in error.settings]
        return f" See {', '.join(filter(None, named))}." if any(named) else ""


def knob_options(
    config_class: type, only: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> list[click.Parameter]:
    """The options of knobs, for `click.command(params=...)`.

    Args:
        config_class: the dataclass with the knobs.
        only: names of the knobs; empty: all.
        without: names of knobs that are left out.
    """
    return [
        KnobOption(knob)
        for knob in configs.knobs(config_class)
        if knob.name not in without and (not only or knob.name in only)
    ]


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return ""
    if isinstance(default, tuple):
        default = ("x" if isinstance(default[0], int) else ",").join(map(str, default))
    return f"  [default: {default}]"
