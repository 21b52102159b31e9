"""One run on this machine: checks, console, TFX, results."""

import errno
import fcntl
import logging
import os
import re
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from components import cluster
from models.errors import UserError
from pipeline import console, preflight, results
from pipeline.configs import PipelineConfig


class RunFailed(RuntimeError):
    """What is not the user's fault; the log has all of it."""


def run(config: PipelineConfig) -> tuple[results.Results | None, float]:
    """Runs the pipeline to its end; what was done before comes from TFX's cache.

    Of the workers that TF_CONFIG names the chief does this; another runs as far as the Trainer, in
    a temporary folder.

    Returns:
        The results, `None` if this process is not the chief, and the seconds taken.

    Raises:
        UserError: if input or configuration are at fault, or the disk is full.
        RunFailed: at any other error.
    """
    started = time.monotonic()
    is_chief = cluster.task().is_chief
    planned = preflight.plan(config)
    if config.gate.infra_validation:
        preflight.check_docker()
    if not is_chief:
        config = replace(config, output=tempfile.mkdtemp(prefix="capsad-"))
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"Another run is using {output}: wait for it, or choose another --output."
            ) from None
        log = output / "log.txt"
        print(
            f"{config.name}: {planned.source.title} ({planned.source.origin}), anomaly "
            f"{', '.join(planned.anomaly_classes)}, detector {config.training.detector}\n"
            f"  log: {log}",
            flush=True,
        )
        try:
            with console.noise_to(str(log)):
                try:
                    _run(config, is_chief)
                    outcome = results.read(config.output_dir) if is_chief else None
                except Exception:
                    logging.exception("The run failed.")
                    raise
        except Exception as error:  # that of a log that can't be written included
            raise _explained(error, output, log) from error
    if not is_chief:
        shutil.rmtree(output)
    return outcome, time.monotonic() - started


def _run(config, is_chief):
    # Imported here: TFX takes more than ten seconds, which bad input need not wait for.
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner
    from tfx.orchestration.pipeline import RunOptions

    from pipeline.pipeline import create_pipeline

    console.keep_handlers()
    LocalDagRunner().run(
        create_pipeline(config), None if is_chief else RunOptions(to_nodes=["Trainer"])
    )


def _explained(error: Exception, output: Path, log: Path) -> Exception:
    """The error as the user's, where it is; Beam wraps errors and adds where they happened."""
    message = re.sub(r" \[while running .*", "", str(error), flags=re.DOTALL)
    if isinstance(error, UserError):
        return UserError(message)
    if _disk_is_full(error):
        return UserError(
            f"The disk is full while writing to {output}: free some space or choose another "
            "--output; the same command goes on where this one stopped."
        )
    return RunFailed(f"The run failed: {type(error).__name__}: {message.strip()}. See {log}")


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
