"""The command `capsad score`."""

import contextlib
import itertools
import os
import sys
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
    from components import scoring
    from components.scoring.files import find_images, score_files
    from components.scoring.rows import FORMATS

    files = find_images(images)
    client = scoring.remote(url, model_name, timeout) if url else scoring.local(*model)
    counts = {"scored": 0, "unreadable": 0}
    shown = sys.stderr.isatty() and (output is not None or not sys.stdout.isatty())
    found = _rows(score_files(client, files), alpha, counts, shown)
    first = next(found, None)
    if first is None:
        raise click.ClickException(
            f"No image was scored: {counts['unreadable']} unreadable file(s) in "
            f"{', '.join(images)}."
        )
    with _opened(output) as file:
        FORMATS[format_name](itertools.chain([first], found), file)
    if counts["unreadable"]:
        click.echo(f"{counts['scored']} scored, {counts['unreadable']} unreadable", err=True)


def _rows(results, alpha, counts, shown) -> Iterator[dict]:
    """The rows of what was scored; the rest is told on standard error."""
    from components.scoring.files import Unreadable
    from components.scoring.rows import rows

    for result in results:
        if isinstance(result, Unreadable):
            counts["unreadable"] += 1
            click.echo(f"{result.path}: {result.reason}", err=True)
            continue
        yield from rows(result.paths, result.outputs, alpha)
        counts["scored"] += len(result.paths)
        if shown:
            click.echo(f"\r{counts['scored']} images", nl=False, err=True)
    if shown:
        click.echo(err=True)


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
