"""Shows one line for each component of a run. Messages of libraries go to a file."""

import contextlib
import logging
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator

import click

from models.errors import UserError

_COMPONENT = re.compile(r"Component (\S+) is (running|finished)\.$")


class ComponentLines(logging.Handler):
    """Prints a line with the duration of each component when it is finished."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._started = 0.0
        self._cached = False

    def emit(self, record: logging.LogRecord) -> None:
        """Reads a log message of the runner, and prints a line if a component is finished."""
        message = record.getMessage()
        match = _COMPONENT.match(message)
        if not match:
            self._cached = (
                self._cached
                or "is skipped because" in message
                or ("cached" in message.lower() and "launcher" in record.pathname)
            )
            return
        name, state = match.groups()
        if state == "running":
            self._started, self._cached = time.monotonic(), False
            if sys.stdout.isatty():
                print(f"  {name} ...", end="\r", flush=True)
            return
        seconds = time.monotonic() - self._started
        print(f"  {name:<20}{seconds:7.1f} s{'  (cached)' if self._cached else ''}", flush=True)


@contextlib.contextmanager
def noise_to(path: str) -> Iterator[None]:
    """Appends standard error, warnings and all log messages to the file `path`.

    Libraries in C++ write to file descriptor 2 directly. Therefore this descriptor is redirected.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(path, "a", buffering=1) as log:
        os.dup2(log.fileno(), 2)
        stderr, sys.stderr = sys.stderr, log
        file_handler = logging.StreamHandler(log)
        file_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.handlers[:] = [file_handler, ComponentLines()]
        root.setLevel(logging.INFO)
        try:
            with warnings.catch_warnings():
                yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            sys.stderr = stderr
            os.dup2(terminal, 2)
            os.close(terminal)


@contextlib.contextmanager
def noise_to_temporary_log(task: str) -> Iterator[None]:
    """Does the same as `noise_to`, with a file that is kept only after an unexpected error.

    Args:
        task: name of the task, with which the error message begins.

    Raises:
        click.ClickException: in place of any error that is not a UserError. It names the log file.
    """
    descriptor, log = tempfile.mkstemp(prefix="capsad-", suffix=".log")
    os.close(descriptor)
    try:
        with noise_to(log):
            try:
                yield
            except UserError:
                raise
            except Exception as error:
                logging.exception("%s failed.", task)
                reason = str(error).strip().partition("\n")[0]
                raise click.ClickException(
                    f"{task} failed: {type(error).__name__}: {reason}. See {log}"
                ) from error
    except click.ClickException:
        raise
    except BaseException:
        os.remove(log)
        raise
    os.remove(log)


def keep_handlers() -> None:
    """Undoes the changes of logging by the import of TFX.

    This must be called after the import, within `noise_to`.
    """
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.INFO)
    root = logging.getLogger()
    absl_handler = absl_logging.get_absl_handler()
    if absl_handler in root.handlers:
        root.removeHandler(absl_handler)
