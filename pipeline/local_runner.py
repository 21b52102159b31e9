"""Runs a pipeline on this machine. This is the file for the TFX command.

    tfx pipeline create --engine local --pipeline_path pipeline/local_runner.py
    tfx run create --pipeline_name capsad_mnist

The argument --pipeline_name of the second command chooses the pipeline. Without a TFX command, the
variable CAPSAD_PIPELINE chooses it. Other CAPSAD_* variables set the knobs of `pipeline.configs`.
The output is that of `capsad run`. Without CAPSAD_OUTPUT it goes into the folder `runs` of this
project, wherever the command is given.
"""

import dataclasses
import os
import re
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # TFX executes this file by its path. Python then looks for modules in its folder first, where
    # pipeline.py would hide the package of the same name.
    sys.path[0] = str(ROOT)

# ruff: noqa: E402
import click

from models.errors import UserError
from pipeline import configs
from pipeline.cli.console import Components
from pipeline.cli.report import show
from pipeline.cli.run import execute
from pipeline.knobs import knobs
from pipeline.plan import plan


def main() -> None:
    """Runs the pipeline that the TFX command and the environment describe."""
    started = time.monotonic()
    try:
        for warning in configs.unknown_variables():
            print(f"Warning: {warning}", file=sys.stderr)
        planned = plan(configs.configure(_pipeline_name()))
        if not planned.config.output:
            output = ROOT / os.path.relpath(planned.output)
            config = dataclasses.replace(planned.config, output=str(output))
            planned = dataclasses.replace(planned, config=config)
        result = execute(planned, Components(shown=True))
        if result is not None:
            told = [*planned.table.lines(), *planned.warnings]
            show(result, f"{time.monotonic() - started:.0f} s", told)
    except UserError as error:
        sys.exit(f"Error: {error}{_remedy(error)}")
    except click.ClickException as error:
        sys.exit(f"Error: {error.message}")
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where this one stopped.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _remedy(error: UserError) -> str:
    """Names the variables that set what an error is about."""
    variables = {found.name: found.variable for found in knobs(configs.PipelineConfig)}
    named = [variables.get(name, f"CAPSAD_SETTINGS={name}=...") for name in error.settings]
    return f" See {', '.join(filter(None, named))}." if any(named) else ""


def _pipeline_name() -> str | None:
    """Returns the name of the pipeline, or `None` if variables choose it.

    The TFX command that has started this process takes precedence over them.
    """
    chosen = os.environ.get("CAPSAD_PIPELINE")
    command = Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")
    is_tfx = any(Path(word).name == "tfx" for word in command[:2])
    match = is_tfx and re.search(r"--pipeline[_-]name[= ](\S+)", " ".join(command))
    if not match:
        return None if chosen or os.environ.get("CAPSAD_IMAGES") else "capsad_mnist"
    if chosen and configs.get(chosen) != configs.get(match[1]):
        print(
            f"Warning: CAPSAD_PIPELINE is {chosen}, but the command names {match[1]}, which runs.",
            file=sys.stderr,
        )
    return match[1]


if __name__ == "__main__":
    main()
