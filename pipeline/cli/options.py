"""The options of the commands that set knobs, and how help and errors show them."""

import signal
import sys
from dataclasses import MISSING
from typing import Any

import click

from components.data.formats import MAX_PIXELS
from models.errors import UserError
from pipeline import configs
from pipeline.knobs import Knob, knobs
from pipeline.parameters import FiniteRange

_GROUPS = {
    "data": "Data",
    "training": "Training",
    "gate": "Gates that a model must pass",
    "containers": "Containers",
    "": "Run",
}


class KnobOption(click.Option):
    """The option of a knob. Its variable is read by `configs`, as for all runners.

    Args:
        knob: the knob.
        with_default: whether the help says what holds if the option is not given.
    """

    def __init__(self, knob: Knob, with_default: bool):
        is_switch = isinstance(knob.kind, click.types.BoolParamType)
        name = f"{knob.option}/--no-{knob.option.removeprefix('--')}" if is_switch else knob.option
        default = knob.field.default
        about, _, told = knob.help.partition("  [default: ")
        if not (told or is_switch or default in (MISSING, None, (), "")):
            told = f"{default}]"
        shown = f"  [default: {told}" if told and with_default else ""
        variable = f"  [{knob.variable}]" if knob.variable else ""
        super().__init__(
            [name, knob.name],
            type=None if is_switch else knob.kind,
            multiple=bool(knob.many),
            metavar=knob.field.metadata["metavar"],
            help=f"{about}{shown}{variable}",
            default=None,  # If the option is not given, the named pipeline decides.
        )
        self.group = _GROUPS[knob.section]
        self.variable = knob.variable


class Command(click.Command):
    """A command with knobs in groups in its help. A UserError is one line with exit code 2.

    Args:
        *given: as for `click.Command`.
        goes_on: whether the same command goes on where it was stopped.
        **also: as for `click.Command`.
    """

    def __init__(self, *given: Any, goes_on: bool = False, **also: Any):
        super().__init__(*given, **also)
        self.goes_on = goes_on

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the help of all options, in groups."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and isinstance(parameter, click.Option):
                groups.setdefault(_group(parameter), []).append(record)
        for name in sorted(groups, key=lambda name: name == "Options"):
            with formatter.section(name):
                formatter.write_dl(groups[name])

    def invoke(self, ctx: click.Context) -> Any:
        """Prints warnings about unknown variables and runs the command."""
        for warning in configs.unknown_variables():
            click.echo(f"Warning: {warning}", err=True)
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"Error: {error}{self._remedy(error)}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            then = " The same command goes on where this one stopped." if self.goes_on else ""
            click.echo(f"\nStopped.{then}", err=True)
            sys.exit(128 + signal.SIGINT)

    def _remedy(self, error: UserError) -> str:
        """Names the options and variables that set what an error is about."""
        options = {option.name: _shown_option(option) for option in self.params}
        others = "--set {}=..." if "settings" in options else ""
        named = [options.get(name, others.format(name)) for name in error.settings]
        return f" See {', '.join(filter(None, named))}." if any(named) else ""


quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    help="Show no progress: only the result, warnings and errors.",
)
alpha_option = click.option(
    "--alpha",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Share of normal images that may be flagged by mistake.",
)


def knob_options(
    config_class: type,
    only: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    *,
    with_defaults: bool = True,
) -> list[click.Parameter]:
    """Makes the options of knobs, for `click.command(params=...)`.

    Args:
        config_class: dataclass with the knobs.
        only: names of the knobs. If it is empty, all knobs are taken.
        without: names of knobs that are left out.
        with_defaults: whether the help says what holds if an option is not given.
    """
    return [
        KnobOption(knob, with_defaults)
        for knob in knobs(config_class)
        if knob.name not in without and (not only or knob.name in only)
    ]


def pixel_limit(given: int | None) -> int:
    """The largest number of pixels of an image: as given, or by its variable, or the default."""
    return given or configs.from_environment(configs.PipelineConfig).get("max_pixels", MAX_PIXELS)


def _group(parameter: click.Parameter) -> str:
    return parameter.group if isinstance(parameter, KnobOption) else "Options"


def _shown_option(option: click.Parameter) -> str:
    variable = option.variable if isinstance(option, KnobOption) else None
    return option.opts[0] + (f" ({variable})" if variable else "")
