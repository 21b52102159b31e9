"""Progress of long tasks, as log messages that a console may show as a bar.

Python is silent about them unless it is asked: `logging.basicConfig(level=logging.INFO)` prints a
line for each epoch.
"""

import logging
from typing import NamedTuple

LOGGER = logging.getLogger("capsad.progress")


class Progress(NamedTuple):
    """How far a task is. It is the attribute `progress` of a log record."""

    task: str
    done: float
    total: float


def report(task: str, done: float, total: float, line: str | None = None) -> None:
    """Tells how far a task is.

    Args:
        task: what is done, such as `training`.
        done: how much of it is done.
        total: how much there is to do, in the unit of `done`.
        line: sentence for those who read lines. `None`: this step is not worth one.
    """
    LOGGER.log(
        logging.DEBUG if line is None else logging.INFO,
        "%s",
        line or f"{task}: {done:g} of {total:g}",
        extra={"progress": Progress(task, done, total)},
    )


def tell(line: str) -> None:
    """Tells a sentence that has to do with a task, such as a warning."""
    LOGGER.info("%s", line)
