"""Runs a pipeline on this machine. This is the file for the TFX command.

    tfx pipeline create --engine local --pipeline_path pipeline/local_runner.py
    tfx run create --pipeline_name capsad_mnist

The argument --pipeline_name of the second command chooses the pipeline. Without a TFX command, the
variable CAPSAD_PIPELINE chooses it. Other CAPSAD_* variables set the knobs of `pipeline.configs`.
"""

import contextlib
import fcntl
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # TFX executes this file by its path. Python then looks for modules in its folder first, where
    # pipeline.py would hide the package of the same name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

# ruff: noqa: E402
from components.training import cluster
from models.errors import UserError
from pipeline import artifacts, configs
from pipeline.knobs import knobs
from pipeline.plan import Plan, plan

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline


@contextlib.contextmanager
def output_folder(output: str) -> Iterator[Path]:
    """Makes the output folder of a run, and keeps other runs out of it until the block ends.

    Damaged artifacts of earlier runs are removed, so that they are made again.

    Raises:
        UserError: if the folder cannot be written, if another run is using it, or if its database
            is damaged.
    """
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
        UserError: if the images do not suit the detector.
    """
    if cluster.task().workers > 1:
        # TensorFlow can join a cluster only before it computes anything, and ExampleGen computes.
        from components.training import strategy

        strategy.choose(planned.config.training.strategy)
    # TFX is imported here, because the import takes more than ten seconds, and errors in the input
    # should be found before.
    from pipeline import platforms
    from pipeline.pipeline import create_pipeline

    return create_pipeline(planned, platforms.local(planned))


def run(pipeline: "Pipeline", to_nodes: list[str] | None = None) -> None:
    """Runs a pipeline to its end. Results of earlier runs are taken from TFX's cache.

    Args:
        pipeline: pipeline that is run.
        to_nodes: ids of the components after which the run ends. `None` runs all components.
    """
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner
    from tfx.orchestration.pipeline import RunOptions

    try:
        LocalDagRunner().run(pipeline, to_nodes and RunOptions(to_nodes=to_nodes))
    except Exception as error:
        if _is_interrupt(error):
            raise KeyboardInterrupt from error
        raise


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error; Beam makes another error of it."""
    if error is None:
        return False
    return (
        isinstance(error, KeyboardInterrupt)
        or str(error).startswith(KeyboardInterrupt.__name__)
        or _is_interrupt(error.__cause__ or error.__context__)
    )


def main() -> None:
    """Runs the pipeline that the TFX command and the environment describe."""
    try:
        for warning in configs.unknown_variables():
            print(f"Warning: {warning}", file=sys.stderr)
        planned = plan(configs.configure(_pipeline_name()))
        with output_folder(planned.output):
            run(compile_pipeline(planned))
    except UserError as error:
        sys.exit(f"Error: {error}{_remedy(error)}")
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where this one stopped.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _remedy(error: UserError) -> str:
    """Names the variables that set what an error is about."""
    variables = {found.name: found.variable for found in knobs(configs.PipelineConfig)}
    named = [variables.get(name, f"CAPSAD_SETTINGS={name}=...") for name in error.settings]
    return f" See {', '.join(filter(None, named))}." if any(named) else ""


def _pipeline_name() -> str:
    """Returns the name of the pipeline.

    The TFX command that has started this process takes precedence over CAPSAD_PIPELINE.
    """
    chosen = os.environ.get("CAPSAD_PIPELINE")
    command = Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")
    is_tfx = any(Path(word).name == "tfx" for word in command[:2])
    match = is_tfx and re.search(r"--pipeline[_-]name[= ](\S+)", " ".join(command))
    if not match:
        return chosen or "capsad_mnist"
    if chosen and configs.get(chosen) != configs.get(match[1]):
        print(
            f"Warning: CAPSAD_PIPELINE is {chosen}, but the command names {match[1]}, which runs.",
            file=sys.stderr,
        )
    return match[1]


if __name__ == "__main__":
    main()
