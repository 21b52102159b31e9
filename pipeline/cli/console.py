"""What a terminal shows of a run. Messages of libraries go to a file."""

from __future__ import annotations

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

from models import progress
from models.errors import UserError

_COMPONENT = re.compile(r"Component (\S+) is (running|finished)\.$")


class Display(logging.Handler):
    """Shows progress: a bar on a terminal, else a line for each epoch and the like.

    It is a handler of all log messages, within `noise_to`.

    Args:
        shown: whether anything is shown.
    """

    def __init__(self, shown: bool):
        from pipeline.cli.bars import bars  # It is imported here, because it takes a moment.

        super().__init__(logging.DEBUG)
        self.shown = shown
        self._bars = bars(shown)
        self._subject = ""

    def __enter__(self) -> Display:
        self._bars.start()
        if not self._bars.disable:
            progress.LOGGER.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_: object) -> None:
        progress.LOGGER.setLevel(logging.NOTSET)
        self._bars.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """Shows what a message of `models.progress` tells."""
        if record.name != progress.LOGGER.name or not self.shown:
            return
        told: progress.Progress | None = getattr(record, "progress", None)
        if told is None or (self._bars.disable and record.levelno >= logging.INFO):
            click.echo(f"    {record.getMessage()}")
        elif not self._bars.disable:
            self.move(f"{self._subject} {told.task}".strip(), told.done, told.total)

    def start(self, subject: str) -> None:
        """Begins a bar, of which nothing is known but what it is about."""
        self._subject = subject
        self.move(f"{subject} ...", 0, None)

    def move(self, description: str, done: float, total: float | None) -> None:
        """Moves the bar. Another description begins another one."""
        if not self._bars.tasks or self._bars.tasks[0].description != description:
            self.stop()
            self._bars.add_task(description, total=total)
        self._bars.update(self._bars.task_ids[0], completed=done, total=total)

    def stop(self) -> None:
        """Ends the bar."""
        for bar in self._bars.task_ids:
            self._bars.remove_task(bar)


class Components(Display):
    """Shows also a line for each finished component.

    The attribute `seconds` tells how long each component took, and `cached` is the set of those
    whose results came from the cache.
    """

    def __init__(self, shown: bool):
        super().__init__(shown)
        self.seconds: dict[str, float] = {}
        self.cached: set[str] = set()
        self._started = 0.0
        self._is_cached = False

    def emit(self, record: logging.LogRecord) -> None:
        """Reads a log message of the runner, and prints a line if a component is finished."""
        super().emit(record)
        message = record.getMessage()
        match = _COMPONENT.match(message)
        if not match:
            self._is_cached = (
                self._is_cached
                or "is skipped because" in message
                or ("cached" in message.lower() and "launcher" in record.pathname)
            )
            return
        name, state = match.groups()
        if state == "running":
            self._started, self._is_cached = time.monotonic(), False
            self.start(name)
            return
        self.stop()
        seconds = time.monotonic() - self._started
        self.seconds[name] = round(seconds, 1)
        if self._is_cached:
            self.cached.add(name)
        if self.shown:
            click.echo(f"  {name:<20}{seconds:7.1f} s{'  (cached)' if self._is_cached else ''}")


@contextlib.contextmanager
def noise_to(path: str, display: Display | None = None) -> Iterator[None]:
    """Appends standard error, warnings and all log messages to the file `path`.

    Libraries in C++ write to file descriptor 2 directly. Therefore this descriptor is redirected.

    Args:
        path: path of the file.
        display: what shows progress meanwhile.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(path, "a", buffering=1) as log, display or contextlib.nullcontext():
        os.dup2(log.fileno(), 2)
        stderr, sys.stderr = sys.stderr, log
        file_handler = logging.StreamHandler(log)
        file_handler.setLevel(logging.INFO)
        file_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.handlers[:] = [file_handler, *([display] if display else [])]
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
def noise_to_temporary_log(task: str, display: Display | None = None) -> Iterator[None]:
    """Does the same as `noise_to`, with a file that is kept only after an unexpected error.

    Args:
        task: name of the task, with which the error message begins.
        display: as for `noise_to`.

    Raises:
        click.ClickException: in place of any error that is not a UserError. It names the log file.
    """
    descriptor, log = tempfile.mkstemp(prefix="capsad-", suffix=".log")
    os.close(descriptor)
    try:
        with noise_to(log, display):
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
