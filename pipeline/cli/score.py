"""The command `capsad score`."""

import contextlib
import dataclasses
import itertools
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import IO, Any

import click

from components.data.folder import UNREADABLE, Table, find_images
from models.errors import UserError
from models.files import whole_file
from pipeline.beam_args import beam_args as with_defaults
from pipeline.beam_args import check_engine, check_no_pattern
from pipeline.cli import console
from pipeline.cli.json_output import print_json
from pipeline.cli.options import Command, alpha_option, knob_options, pixel_limit, quiet_option
from pipeline.configs import PipelineConfig, from_environment
from pipeline.imports import large_imports
from pipeline.parameters import FiniteRange, OutputFile, OutputFolder

_FORMATS, _BEAM_FORMATS = ("table", "csv", "jsonl"), ("tfrecord", "parquet")


@click.command(cls=Command, params=knob_options(PipelineConfig, only=("beam_args", "max_pixels")))
@click.argument("paths", metavar="[MODEL] IMAGE...", nargs=-1)
@click.option("--url", metavar="URL", help="http://HOST:PORT or grpc://HOST:PORT, without MODEL.")
@click.option(
    "--model-name", default="capsad", show_default=True, help="Name of the model at the --url."
)
@click.option(
    "--timeout",
    type=FiniteRange(0, 86_400, min_open=True),
    default=30,
    show_default=True,
    help="Seconds that a request to the --url may take.",
)
@alpha_option
@click.option(
    "--format",
    "format_name",
    type=click.Choice([*_FORMATS, *_BEAM_FORMATS]),
    help="How scores are written: table, csv or jsonl; with --beam tfrecord or parquet.  "
    "[default: the first]",
)
@click.option(
    "--output",
    metavar="PATH",
    help="File for the scores, or with --beam a new folder.  [standard output]",
)
@click.option(
    "--heatmaps",
    type=OutputFolder(),
    metavar="FOLDER",
    help="Folder for a picture of each flagged image that shows where it is unusual.",
)
@click.option("--beam", is_flag=True, help="Score by Apache Beam: any number of images.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The same as --format jsonl; with --beam, print the numbers of images as JSON.",
)
@quiet_option
@click.option(
    "--max-dead",
    type=FiniteRange(0, 1),
    help="With --beam, largest share of images that may be unreadable.  [default: 0.5]",
)
def score(
    paths: tuple[str, ...],
    url: str | None,
    model_name: str,
    timeout: float,
    alpha: float,
    format_name: str | None,
    output: str | None,
    heatmaps: str | None,
    beam: bool,
    as_json: bool,
    quiet: bool,
    max_dead: float | None,
    beam_args: tuple[str, ...],
    max_pixels: int | None,
) -> None:
    """Score image files, or folders of them, by a pushed model.

    MODEL is a run's output folder, its `serving` folder, or one version's folder; of several
    versions the newest is taken. With --url a running TensorFlow Serving scores instead. An image
    is flagged when its anomaly_score exceeds 1 - alpha. Files that are no images are named on
    standard error; only when nothing could be scored the exit code is 1.

    With --beam an IMAGE may also be a manifest (.txt with a path a line, .csv with a column
    `path`), TFRecords of tf.Examples with `image/encoded`, or a glob; --alpha is not used.
    """
    model, images = ("", paths) if url else ("".join(paths[:1]), paths[1:])
    if not images:
        raise UserError(
            "Give images or folders: capsad score MODEL IMAGE..., or "
            "capsad score --url URL IMAGE..."
        )
    if beam and heatmaps:
        raise UserError("--heatmaps does not go with --beam.")
    if beam:
        display = console.Display(shown=not (quiet or as_json))
        limits: dict[str, float] = {"max_pixels": pixel_limit(max_pixels)}
        limits |= {} if max_dead is None else {"max_dead": max_dead}
        counts = _score_by_beam(model, images, output, format_name, beam_args, limits, display)
        if as_json:
            print_json("score", **dataclasses.asdict(counts), output=output)
            return
        click.echo(f"{counts.scored} images scored, {counts.dead} could not be.")
        for outcome, count in counts.left_out.items():
            click.echo(f"{count} files {outcome}", err=True)
        return
    if as_json and format_name not in (None, "jsonl"):
        raise UserError(f"--json is --format jsonl, so it does not go with --format {format_name}.")
    if beam_args or max_dead is not None or format_name in _BEAM_FORMATS:
        raise UserError(
            f"--beam-arg, --max-dead and the formats {', '.join(_BEAM_FORMATS)} go with --beam."
        )
    output = output and _checked(output, OutputFile())
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f"{path} does not exist: give a model and images, or folders of them.")
        if output is not None and os.path.exists(output) and os.path.samefile(path, output):
            raise UserError(f"{output} is also scored: give another file.", "output")
    # What TensorFlow and its libraries say of themselves is not what is asked for here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    with console.noise_to(os.devnull), _without_keras(), large_imports():
        from components.serving import clients
        from components.serving.files import score_files
        from components.serving.rows import FORMATS

        pictures = heatmaps is not None
        if url:
            client = clients.remote(url, model_name, timeout, pictures)
        else:
            client = clients.local(model, pictures)
    table = Table()
    files = list(find_images(images, table))
    # Not among the scores themselves.
    shown = not quiet and (output is not None or not sys.stdout.isatty())
    progress = _Progress(len(files), shown)
    results = score_files(client, files, table, pixel_limit(max_pixels))
    with progress:
        found = _rows(results, alpha, progress, heatmaps)
        first = next(found, None)
        if first is None:
            for line in table.lines():
                progress.tell(line)
            raise click.ClickException(
                f"No image was scored: {progress.unreadable} unreadable file(s) in "
                f"{', '.join(images)}."
            )
        write = FORMATS["jsonl" if as_json else format_name or _FORMATS[0]]
        with _opened(output) as file:
            write(itertools.chain([first], found), file)
    _tell_left_out(table, progress)


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Lets TensorFlow not load Keras, which takes more than a second and is not needed here.

    TensorFlow looks for the legacy Keras instead, which is not installed.
    """
    variable = "TF_USE_LEGACY_KERAS"
    given = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        del os.environ[variable]
        if given is not None:
            os.environ[variable] = given


def _tell_left_out(table, progress):
    """Says what was left out, if anything was."""
    for line in table.lines():
        progress.tell(line)
    unreadable = progress.unreadable + table.counts.get(UNREADABLE, 0)
    if unreadable:
        progress.tell(f"{progress.scored} scored, {unreadable} unreadable")


def _checked(output: str, kind: click.ParamType) -> str:
    """Before anything is scored, as the other commands do; what it must be depends on --beam."""
    try:
        return kind.convert(output, None, None)
    except click.BadParameter as error:
        raise UserError(error.message, "output") from None


def _score_by_beam(model, images, output, format_name, beam_args, limits, display):
    if not model or output is None or format_name in _FORMATS:
        raise UserError(
            "--beam goes with a MODEL, not a --url, with --output DIR, and with --format "
            f"{' or '.join(_BEAM_FORMATS)}."
        )
    output = _checked(output, OutputFolder())
    check_no_pattern(output)
    argv = with_defaults(beam_args or from_environment(PipelineConfig).get("beam_args", ()))
    check_engine(argv)
    with console.noise_to_temporary_log("Scoring", display):
        display.start("Scoring")
        # Imported here, because Beam and TensorFlow take seconds.
        with large_imports():
            import apache_beam as beam

            from components.serving.batch.pipeline import score_all
            from components.serving.runner import newest_version

        return score_all(
            beam.Pipeline(argv=argv),
            newest_version(model),
            images,
            output,
            output_format=format_name or _BEAM_FORMATS[0],
            **limits,
        )


class _Progress:
    """Messages on standard error and, where that is a terminal, a bar.

    Args:
        total: number of images.
        shown: whether a bar may be shown.
    """

    def __init__(self, total: int, shown: bool):
        from pipeline.cli.bars import bars  # It is imported here, because it takes a moment.

        self._bars = bars(shown, to_stderr=True)
        self._bar = self._bars.add_task("Scoring", total=total)
        self.scored = 0
        self.unreadable = 0

    def count(self, scored: int, unreadable: int = 0) -> None:
        self.scored += scored
        self.unreadable += unreadable
        self._bars.advance(self._bar, scored + unreadable)

    def tell(self, message: str) -> None:
        if self._bars.live.is_started:  # It moves the bar down.
            self._bars.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(message, err=True)

    def __enter__(self) -> None:
        self._bars.start()

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


def _rows(
    results: Iterable[Any], alpha: float, progress: _Progress, heatmaps: str | None
) -> Iterator[dict]:
    """The rows of what was scored, whose heat maps are written; the rest is told."""
    from components.serving.files import Unreadable
    from components.serving.heatmaps import HeatmapWriter
    from components.serving.rows import cannot_flag, rows

    told = False
    writer = HeatmapWriter(heatmaps) if heatmaps else None
    for result in results:
        if isinstance(result, Unreadable):
            progress.count(0, unreadable=1)
            progress.tell(f"{result.name}: {result.reason}")
        else:
            warning = cannot_flag(result.outputs, alpha)
            if warning and not told:
                progress.tell(f"Warning: {warning}")
                told = True
            found = list(rows(result.names, result.outputs, alpha))
            if writer:
                flagged = [bool(row["flagged"]) for row in found]
                writer.write_flagged(result.names, result.images, result.outputs, flagged)
            yield from found
            progress.count(len(result.names))


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[IO[str]]:
    """Standard output, or a file that appears when it is whole."""
    if output is None:
        yield sys.stdout
        return
    try:
        with whole_file(output) as file:
            yield file
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}.", "output") from error
