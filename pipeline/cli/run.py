"""The command `capsad run`: checks, console, TFX, results."""

import dataclasses
import errno
import logging
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from components.data.folder import READ
from components.training import cluster
from models.errors import UserError
from pipeline import configs, local, mlflow, results
from pipeline.artifacts import damaged_records
from pipeline.cli import console
from pipeline.cli.console import Components
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command, knob_options, quiet_option
from pipeline.cli.report import show
from pipeline.plan import Plan, check_docker, plan


@click.command(cls=Command, goes_on=True, params=knob_options(configs.PipelineConfig))
@click.argument("name", required=False)
@click.option(
    "--mlflow",
    "mlflow_uri",
    metavar="URI",
    help="Log settings, measures, report and model to this MLflow server, or to a folder.",
)
@quiet_option
@json_option
def run(name: str | None, mlflow_uri: str | None, quiet: bool, as_json: bool, **given: Any) -> None:
    """Train, judge, bless and push a detector on the data set NAME.

    NAME is one of digits (the default), mnist, fashion_mnist, smallnorb and images. The same
    command again is answered from the cache; after a kill it goes on where it was. The variable
    that an option names sets the same where the option is not given.
    """
    config = configs.configure(name, **given)
    planned = plan(config)
    if config.gate.infra_validation:
        check_docker()
    if mlflow_uri:
        mlflow.check(mlflow_uri)
    started = time.monotonic()
    display = Components(shown=not (quiet or as_json))
    result = execute(planned, display)
    seconds = time.monotonic() - started
    if result is None:
        if display.shown:
            click.echo(f"\n  trained along; the chief has the results ({seconds:.0f} s)")
        return
    logged = problem = None
    if mlflow_uri:
        try:
            logged = mlflow.log(mlflow_uri, planned.config.name, Path(planned.output).name, result)
        except UserError as error:
            problem = error
    if as_json:
        took = {
            component: {"seconds": taken, "cached": component in display.cached}
            for component, taken in display.seconds.items()
        }
        print_json(
            "run",
            **dataclasses.asdict(result),
            seconds=round(seconds, 1),
            components=took,
            mlflow=logged,
        )
    else:
        told = [*planned.table.lines(), *planned.warnings] if display.shown else planned.warnings
        show(result, f"{seconds:.0f} s", told)
        if logged:
            click.echo(f"  MLflow:  run {logged} at {mlflow_uri}")
    if problem:
        raise problem


def execute(planned: Plan, display: Components) -> results.Results | None:
    """Runs a plan. The display shows progress, and everything else is in the log.

    Of the workers that TF_CONFIG names only the chief does all of this. The others run as far as
    the Trainer, in a temporary folder.

    Returns:
        The results; `None` if this process is not the chief, or if TFX only looked at the pipeline.

    Raises:
        UserError: if input or configuration are at fault, or the disk is full.
        click.ClickException: at any other error; the log has all of it.
    """
    if cluster.task().is_chief:
        return _execute(planned, display, None)
    folder = tempfile.mkdtemp(prefix="capsad-")
    own = dataclasses.replace(planned.config, output=folder)
    _execute(dataclasses.replace(planned, config=own), display, ["Trainer"])
    shutil.rmtree(folder)
    return None


def _execute(
    planned: Plan, display: Components, to_nodes: list[str] | None
) -> results.Results | None:
    with local.output_folder(planned.output) as output:
        log = output / "log.txt"
        if display.shown:
            _tell_data(planned)
            click.echo(
                f"{planned.config.name}: {planned.source.title} ({planned.source.origin}), anomaly "
                f"{', '.join(planned.classes.anomaly_names)}, detector {planned.detector.name}\n"
                f"  log: {log}"
            )
        for warning in planned.warnings:
            click.echo(f"Warning: {warning}", err=True)
        try:
            with console.noise_to(str(log), display):
                try:
                    pipeline = local.compile_pipeline(planned)
                    console.keep_handlers()
                    is_done = local.run(pipeline, to_nodes) and not to_nodes
                    return results.read(planned.output) if is_done else None
                except Exception:
                    logging.exception("The run failed.")
                    raise
        except Exception as error:  # An error from a log that cannot be written comes here too.
            raise _explained(error, output, log) from error


def _tell_data(planned: Plan) -> None:
    """Prints what is read and what is left out, in short."""
    read = planned.table.counts.get(READ)
    if read is not None:
        click.echo(f"Read {read} images of {len(planned.classes.names)} classes.")
    for line in planned.table.lines():
        click.echo(f"  {line}")
    if planned.choice:
        click.echo(planned.choice)


def _explained(error: Exception, output: Path, log: Path) -> Exception:
    """The error as the user's, where it is; Beam wraps errors and adds where they happened."""
    message = re.sub(r" \[while running .*", "", str(error), flags=re.DOTALL)
    damaged = None if isinstance(error, UserError) else damaged_records(output)
    if damaged:
        return UserError(
            f"{damaged} is damaged: remove {Path(damaged).parents[1]}, and give the same command "
            "again, which makes it anew."
        )
    if isinstance(error, UserError):
        return UserError(message, *error.settings)
    if _disk_is_full(error):
        return UserError(
            f"The disk is full while writing to {output}: free some space or choose another output "
            "folder; the same command goes on where this one stopped.",
            "output",
        )
    return click.ClickException(
        f"The run failed: {type(error).__name__}: {message.strip()}. See {log}"
    )


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether this is why it failed; TFX, too, fails when it records the failure on a full disk."""
    if error is None:
        return False
    return (
        getattr(error, "errno", None) == errno.ENOSPC
        or os.strerror(errno.ENOSPC) in str(error)
        or "database or disk is full" in str(error)  # SQLite's words
        or _disk_is_full(error.__cause__ or error.__context__)
    )
