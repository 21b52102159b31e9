"""The arguments of Apache Beam, which are the same for all Beam jobs of the project."""

import contextlib
import difflib
import io
import os
import socket
from collections.abc import Sequence
from typing import Any

from models.errors import UserError

_DEFAULTS = (
    # This runner works in this process. Newer direct runners first try to download another engine.
    "--runner=FnApiRunner",
    # Without this argument, TFX builds a source distribution for each component.
    "--sdk_container_image=none",
)
# Other runners take arguments that only their engine knows.
_LOCAL = ("FnApiRunner", "DirectRunner")
_ENDPOINTS = ("job_endpoint", "flink_master")
_PATIENCE = 5  # seconds


def beam_args(given: Sequence[str] = ()) -> list[str]:
    """Returns the `given` arguments, and the defaults of all other arguments.

    Args:
        given: arguments of the form `--NAME=VALUE` or `--NAME`.

    Raises:
        UserError: if an argument does not have this form, if Beam does not know it or its value,
            if there is no such runner, or if the runner loses data.
    """
    for argument in given:
        if not argument.startswith("--") or " " in argument.partition("=")[0]:
            raise UserError(f"The Beam argument '{argument}' is not of the form --NAME=VALUE.")
        if argument.endswith("DaskRunner"):
            raise UserError(
                "Beam's DaskRunner silently loses data: use another runner, see docs/engines.md."
            )
    names = {argument.partition("=")[0] for argument in given}
    arguments = [value for value in _DEFAULTS if value.partition("=")[0] not in names]
    arguments += given
    if given:
        _check(arguments)
    return arguments


def check_no_pattern(output: str, signs: str = "*?[") -> None:
    """Raises a UserError if the path of an output has one of Beam's signs of a pattern."""
    path = os.path.abspath(output)
    if found := set(signs) & set(path):
        raise UserError(
            f"The {min(found)} in the output's path {path} would be taken for a pattern: give a "
            "path without it.",
            "output",
        )


def check_engine(arguments: Sequence[str]) -> None:
    """Looks whether an engine answers, if the arguments name one; Beam itself waits for minutes.

    Raises:
        UserError: if it does not answer, or if the address is not of the form HOST:PORT.
    """
    for argument in arguments:
        name, _, address = argument.removeprefix("--").partition("=")
        if name not in _ENDPOINTS or address == "embed" or address.startswith("["):
            continue
        host, _, port = address.rpartition("//")[2].rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"The Beam argument --{name} needs HOST:PORT, not '{address}'.")
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"Nothing answers at {address}, which the Beam argument --{name} names ({reason}): "
                "start the engine first, see docs/engines.md."
            ) from None


def _check(arguments: list[str]) -> None:
    # Beam takes seconds to load, so this is only done where arguments are given.
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import create_runner

    refused = io.StringIO()
    known = PipelineOptions([]).get_all_options()
    found: dict[str, Any] = {}
    try:
        with contextlib.redirect_stderr(refused):
            found = PipelineOptions(arguments).get_all_options(retain_unknown_options=True)
    except SystemExit:
        reason = refused.getvalue().strip().rpartition("error: ")[2]
        raise UserError(f"Beam refuses its arguments: {reason}.") from None
    runner = found["runner"]
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        reason = str(error).partition(".")[0]
        raise UserError(f"Beam has no runner '{runner}' here: {reason}.") from None
    for name in sorted(found.keys() - known.keys()):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if close or runner.endswith(_LOCAL):
            hint = f" Did you mean --{close[0]}?" if close else ""
            raise UserError(f"Beam has no argument --{name}.{hint}")
