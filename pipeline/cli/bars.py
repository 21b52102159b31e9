"""Bars of progress on a terminal."""

import datetime

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text


class Time(ProgressColumn):
    """The time that a task still takes; while that is unknown, the time that it has taken."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Returns the text of the column."""
        left = task.fields.get("left") or task.time_remaining
        seconds = left if left is not None else task.elapsed or 0
        text = str(datetime.timedelta(seconds=round(seconds)))
        return Text(text if left is None else f"{text} left", style="progress.remaining")


def bars(shown: bool, to_stderr: bool = False) -> Progress:
    """Makes bars that go away in the end.

    The field `left` of a task, in seconds, is shown in place of an estimate.

    Args:
        shown: whether they are wanted. They are never shown where there is no terminal.
        to_stderr: whether they are on standard error.
    """
    console = Console(stderr=to_stderr)
    return Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        Time(),
        console=console,
        transient=True,
        # Rich also takes a file for a terminal where FORCE_COLOR is set, as in Jupyter and in CI.
        disable=not (shown and console.is_terminal and console.file.isatty()),
        redirect_stderr=False,  # It may be a file.
    )
