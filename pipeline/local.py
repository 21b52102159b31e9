"""Runs a pipeline on this machine, in a folder that no other run uses."""

import contextlib
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from components.training import cluster
from models.errors import UserError
from pipeline import artifacts
from pipeline.beam_args import check_engine, check_no_pattern
from pipeline.imports import large_imports
from pipeline.plan import Plan

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline


@contextlib.contextmanager
def output_folder(output: str) -> Iterator[Path]:
    """Makes the output folder of a run, and keeps other runs out of it until the block ends.

    Damaged artifacts of earlier runs are removed, so that they are made again.

    Raises:
        UserError: if the folder cannot be written, if another run is using it, if its database is
            damaged, or if its path would be taken for a pattern.
    """
    check_no_pattern(output, "*?[\\")  # The last one is a sign for TensorFlow alone.
    folder = Path(output)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / ".lock").open("w"))
        except OSError as error:
            raise UserError(
                f"The output folder {folder} cannot be written: {error.strerror}. Choose another.",
                "output",
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"Another run is using {folder}: wait for it, or choose another output folder.",
                "output",
            ) from None
        artifacts.check_database(folder)
        for note in artifacts.remove_damaged(folder):
            print(f"Warning: {note}", file=sys.stderr)
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):  # A full disk has an error of its own.
                artifacts.remember(folder)


def compile_pipeline(planned: Plan) -> "Pipeline":
    """Makes the TFX pipeline of a plan for this machine.

    Raises:
        UserError: if the images do not suit the detector, or if Beam's engine does not answer.
    """
    check_engine(planned.config.beam_args)
    if cluster.task().workers > 1:
        # TensorFlow can join a cluster only before it computes anything, and ExampleGen computes.
        from components.training import strategy

        strategy.choose(planned.config.training.strategy)
    # TFX is imported here, because the import takes seconds, and errors in the input should be
    # found before.
    with large_imports():
        from pipeline import platforms
        from pipeline.pipeline import create_pipeline

    return create_pipeline(planned, platforms.local(planned))


def run(pipeline: "Pipeline", to_nodes: list[str] | None = None) -> bool:
    """Runs a pipeline to its end. Results of earlier runs are taken from TFX's cache.

    Args:
        pipeline: pipeline that is run.
        to_nodes: ids of the components after which the run ends. `None` runs all components.

    Returns:
        Whether it ran. `tfx pipeline create` only looks at the pipeline, by a wrapper around TFX's
        runner.
    """
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner
    from tfx.orchestration.pipeline import RunOptions

    try:
        LocalDagRunner().run(pipeline, to_nodes and RunOptions(to_nodes=to_nodes))
    except Exception as error:
        if _is_interrupt(error):
            raise KeyboardInterrupt from error
        raise
    return not hasattr(LocalDagRunner.run, "__wrapped__")


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error; Beam makes another error of it."""
    if error is None:
        return False
    return (
        isinstance(error, KeyboardInterrupt)
        or str(error).startswith(KeyboardInterrupt.__name__)
        or _is_interrupt(error.__cause__ or error.__context__)
    )
