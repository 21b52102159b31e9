"""One run on this machine: checks, console, TFX, results."""

import errno
import fcntl
import logging
import os
import re
import time
from pathlib import Path

from models.errors import UserError
from pipeline import console, preflight, results
from pipeline.configs import PipelineConfig


class RunFailed(RuntimeError):
    """What is not the user's fault; the log has all of it."""


def run(config: PipelineConfig) -> tuple[results.Results, float]:
    """Runs the pipeline to its end; what was done before comes from TFX's cache.

    Returns:
        The results and the seconds taken.

    Raises:
        UserError: if input or configuration are at fault, or the disk is full.
        RunFailed: at any other error.
    """
    started = time.monotonic()
    planned = preflight.plan(config)
    if config.gate.infra_validation:
        preflight.check_docker()
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
                    _run(config)
                    outcome = results.read(config.output_dir)
                except Exception:
                    logging.exception("The run failed.")
                    raise
        except Exception as error:  # that of a log that can't be written included
            raise _explained(error, output, log) from error
        return outcome, time.monotonic() - started


def _run(config):
    # Imported here: TFX takes more than ten seconds, which bad input need not wait for.
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    from pipeline.pipeline import create_pipeline

    console.keep_handlers()
    LocalDagRunner().run(create_pipeline(config))


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
