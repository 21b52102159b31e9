"""The command `capsad doctor`, which checks the installation and says how to repair it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from components.data import sources
from models.errors import UserError
from pipeline import stack
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command

_SETUP = "Run `make setup`, which installs versions that work together."
# Set of versions -> distribution -> its major.minor version.
_VERSIONS = {
    "tfx-1.16": {"tfx": "1.16", "tensorflow": "2.16", "ml-metadata": "1.16", "keras": "3.15"},
    "tfx-1.21": {"tfx": "1.21", "tensorflow": "2.21", "ml-metadata": "1.21", "keras": "3.15"},
}


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    state: Literal["ok", "note", "wrong"]
    """`note` means that it works, but could be better. `wrong` means that runs will fail."""
    subject: str
    found: str
    remedy: str = ""


@click.command(cls=Command)
@json_option
def doctor(as_json: bool) -> None:
    """Check the installation and say how to repair it."""
    checks: list[Check] = []
    for check in examine():
        checks.append(check)
        if as_json:
            continue
        colour = {"ok": "green", "note": "yellow", "wrong": "red"}[check.state]
        click.secho(f"{check.state:<6}", fg=colour, nl=False)
        click.echo(f"{check.subject:<14} {check.found}")
        if check.remedy:
            click.echo(f"{'':<21}-> {check.remedy}")
    if as_json:
        print_json("doctor", checks=checks)
    sys.exit(1 if any(check.state == "wrong" for check in checks) else 0)


def examine() -> Iterator[Check]:
    """Checks the installation. Quick checks come first."""
    try:
        chosen = stack.choose()
    except RuntimeError as error:
        yield Check("wrong", "platform", platform.platform(), str(error))
    else:
        versions = f"Python {platform.python_version()}, glibc {platform.libc_ver()[1]}"
        yield Check("ok", "platform", f"{versions}, so requirements/{chosen}.txt")
        for distribution, version in _VERSIONS[chosen].items():
            yield _version(distribution, version)
    if importlib.util.find_spec("kfp"):
        yield Check(
            "note",
            "kfp",
            importlib.metadata.version("kfp"),
            "With kfp, `tfx run create` uses Kubeflow, unless `--engine local` is given: keep kfp "
            "in a separate environment.",
        )
    if not _in_environment("pip"):
        yield Check(
            "note",
            "PATH",
            "the environment's folder does not come first",
            "Activate the environment, because `tfx` calls `pip`: source .venv/bin/activate.",
        )
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        yield Check(
            "note",
            "byte code",
            "PYTHONDONTWRITEBYTECODE is set",
            "TFX starts four times slower if it is not compiled: `make setup` compiles it.",
        )
    yield _backend()
    for name in sources.names():
        if issubclass(sources.describe(name), sources.FileSource) or name == "digits":
            yield _source(name)


def _in_environment(command: str) -> bool:
    found = shutil.which(command)
    return found is not None and Path(found).parent == Path(sys.executable).parent


def _version(distribution: str, expected: str) -> Check:
    try:
        found = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return Check("wrong", distribution, "not installed", _SETUP)
    if not found.startswith(f"{expected}."):
        return Check("wrong", distribution, f"{found}, not {expected}.*", _SETUP)
    return Check("ok", distribution, found)


def _backend() -> Check:
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        return Check(
            "wrong",
            "Keras backend",
            backend,
            "The pipeline exports models with TensorFlow: unset KERAS_BACKEND.",
        )
    # GPUs are found by the device files of their driver, because TensorFlow would take seconds.
    gpus = sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
    if not gpus:
        return Check("ok", "Keras backend", f"{backend}, {os.cpu_count()} CPU cores, no GPU")
    if importlib.util.find_spec("nvidia") is None:
        return Check(
            "note",
            "Keras backend",
            f"{backend}, GPU present, but no CUDA libraries in the environment",
            "Install the CUDA libraries: pip install 'tensorflow[and-cuda]', see BUILD.md.",
        )
    return Check("ok", "Keras backend", f"{backend}, {len(gpus)} GPU(s)")


def _source(name: str) -> Check:
    try:
        source = sources.find(name)
    except UserError as error:
        return Check("wrong", name, str(error))
    if source is None:
        return Check("note", name, "not found", sources.describe(name).how_to_get)
    return Check("ok", name, f"{source.folder} ({source.origin})")
