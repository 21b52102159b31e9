"""The command `capsad score`."""

import contextlib
import itertools
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

import click

from models.errors import UserError


@click.command()
@click.argument("paths", metavar="[MODEL] IMAGE...", nargs=-1, type=click.Path(exists=True))
@click.option("--url", metavar="URL", help="http://HOST:PORT or grpc://HOST:PORT, without MODEL.")
@click.option(
    "--model-name", default="capsad", show_default=True, help="Of the model at the --url."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30,
    show_default=True,
    help="Seconds that a request to the --url may take.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Share of normal images that may be flagged by mistake.",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["table", "csv", "jsonl"]),
    default="table",
    show_default=True,
    help="How scores are written.",
)
@click.option("--output", metavar="FILE", help="File for the scores.  [standard output]")
def score(paths, url, model_name, timeout, alpha, format_name, output) -> None:
    """Score image files, or folders of them, by a pushed model.

    MODEL is a run's output folder, its `serving` folder, or one version's folder; of several
    versions the newest is taken. With --url a running TensorFlow Serving scores instead. An image
    is flagged when its anomaly_score exceeds 1 - alpha. Files that are no images are named on
    standard error; only when nothing could be scored the exit code is 1.
    """
    model, images = (None, paths) if url else (paths[:1], paths[1:])
    if not images:
        raise UserError(
            "Give images or folders: capsad score MODEL IMAGE..., or "
            "capsad score --url URL IMAGE..."
        )
    # What TensorFlow and its libraries say of themselves is not what is asked for here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    from components import scoring
    from components.scoring.files import find_images, score_files
    from components.scoring.rows import FORMATS

    client = scoring.remote(url, model_name, timeout) if url else scoring.local(*model)
    progress = _Progress(sys.stderr.isatty() and (output is not None or not sys.stdout.isatty()))
    found = _rows(score_files(client, find_images(images)), alpha, progress)
    first = next(found, None)
    if first is None:
        raise click.ClickException(
            f"No image was scored: {progress.unreadable} unreadable file(s) in {', '.join(images)}."
        )
    with _opened(output) as file:
        FORMATS[format_name](itertools.chain([first], found), file)
    if progress.unreadable:
        progress.tell(f"{progress.scored} scored, {progress.unreadable} unreadable")


class _Progress:
    """Messages on standard error and, where that is a terminal of its own, a running count."""

    def __init__(self, shown: bool):
        self._shown = shown
        self.scored = 0
        self.unreadable = 0

    def count(self, images: int) -> None:
        self.scored += images
        if self._shown:
            click.echo(f"\r{self.scored} images", nl=False, err=True)

    def tell(self, message: str) -> None:
        self.clear()
        click.echo(message, err=True)

    def clear(self) -> None:
        if self._shown:
            click.echo("\r\033[K", nl=False, err=True)


def _rows(results, alpha, progress) -> Iterator[dict]:
    """The rows of what was scored; the rest is told."""
    from components.scoring.files import Unreadable
    from components.scoring.rows import rows

    for result in results:
        if isinstance(result, Unreadable):
            progress.unreadable += 1
            progress.tell(f"{result.path}: {result.reason}")
        else:
            yield from rows(result.paths, result.outputs, alpha)
            progress.count(len(result.paths))
    progress.clear()


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[TextIO]:
    """Standard output, or a file that appears when it is whole."""
    if output is None:
        yield sys.stdout
        return
    incomplete = f"{output}.incomplete"
    try:
        with open(incomplete, "w", encoding="utf-8") as file:
            yield file
        os.replace(incomplete, output)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror}.") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(incomplete)
