"""The commands `capsad kubeflow`."""

import os
import tempfile
from typing import Any

import click

from pipeline import configs
from pipeline.cli import console
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command, knob_options
from pipeline.configs import KubeflowConfig, PipelineConfig
from pipeline.imports import large_imports
from pipeline.knobs import knobs
from pipeline.kubeflow.parameters import LOCAL, environment
from pipeline.parameters import Matching, OutputFile

_COMPILED = [*knob_options(PipelineConfig, without=LOCAL), *knob_options(KubeflowConfig)]
_PARAMETERS = [  # What is not given stays as it was compiled.
    *knob_options(PipelineConfig, without=(*LOCAL, "beam_args"), with_defaults=False),
    *knob_options(KubeflowConfig, only=("data_dir",), with_defaults=False),
]
_SUBMISSION: list[click.Parameter] = [
    click.Option(["--host"], required=True, metavar="URL", help="Address of Kubeflow Pipelines."),
    click.Option(
        ["--experiment"],
        default="Default",
        show_default=True,
        metavar="NAME",
        help="Experiment that the run belongs to; it is made if it is not there.",
    ),
    click.Option(["--namespace"], help="Namespace of the run, for a Kubeflow of several users."),
    click.Option(
        ["--pipeline-root"],
        metavar="URI",
        help="Folder for the artifacts: gs://, s3:// or minio://.  [default: the cluster's own]",
    ),
    click.Option(
        ["--service-account"],
        metavar="NAME",
        help="Kubernetes' service account of the containers.  [default: the cluster's own]",
    ),
    click.Option(
        ["--no-cache", "use_cache"],
        is_flag=True,
        flag_value=False,
        default=True,
        help="Run every component, even if its inputs are those of an earlier run.",
    ),
    click.Option(
        ["--cron"],
        type=Matching(r"\s*\S+(?:\s+\S+){5}\s*", "a time of six fields, seconds first"),
        metavar="TIME",
        help="Make a recurring run that starts at these times: '0 0 3 * * *' is every day at 3:00. "
        "The six fields are second, minute, hour, day, month and day of the week.",
    ),
]


@click.group()
def kubeflow() -> None:
    """Compile a pipeline for Kubeflow Pipelines, or run it there.

    The containers read the data from --data-dir, or look for it by themselves. This machine needs
    no data. The options of data, training and gates are parameters of the compiled pipeline, so
    each run may have others.
    """


@kubeflow.command("compile", cls=Command, params=list(_COMPILED))
@click.argument("name", required=False)
@click.option(
    "--output", type=OutputFile(), metavar="FILE", help="File to write.  [default: NAME.yaml]"
)
@json_option
def compile_command(name: str | None, output: str | None, as_json: bool, **given: Any) -> None:
    """Write the specification of the pipeline NAME, which can then be uploaded.

    The options of data, training and gates become the defaults of its parameters.
    """
    pipeline = configs.configure(name).name
    output = output or f"{pipeline}.yaml"
    _compile(pipeline, given, output)
    if as_json:
        print_json("kubeflow-compile", file=os.path.abspath(output))
    else:
        click.echo(f"Written to {output}")


@kubeflow.command("run", cls=Command, params=[*_COMPILED, *_SUBMISSION])
@click.argument("name", required=False)
@json_option
def run_command(name: str | None, as_json: bool, **given: Any) -> None:
    """Compile the pipeline NAME and start a run of it on Kubeflow Pipelines."""
    pipeline = configs.configure(name).name
    submission = _submission(given)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"{pipeline}.yaml")
        _compile(pipeline, given, path)
        _submit(path, {}, submission, as_json)


@kubeflow.command("submit", cls=Command, params=[*_PARAMETERS, *_SUBMISSION])
@click.argument("file")
@json_option
def submit_command(file: str, as_json: bool, **given: Any) -> None:
    """Start a run of the compiled FILE on Kubeflow Pipelines, with other parameters if given."""
    submission = _submission(given)
    _submit(file, environment(**given), submission, as_json)


def _submission(given: dict[str, Any]) -> dict[str, Any]:
    """Takes what says how a specification is run out of the options."""
    return {option.name: given.pop(option.name) for option in _SUBMISSION if option.name}


def _submit(path: str, texts: dict[str, str], submission: dict[str, Any], as_json: bool) -> None:
    with large_imports():
        from pipeline import kubeflow_v2_runner

    address = kubeflow_v2_runner.submit(path, texts, kubeflow_v2_runner.Submission(**submission))
    if as_json:
        print_json("kubeflow-run", address=address)
    else:
        click.echo(f"Started: {address}")


def _compile(pipeline: str, given: dict[str, Any], path: str) -> None:
    with large_imports():
        from pipeline import kubeflow_v2_runner

    of_containers = {knob.name for knob in knobs(KubeflowConfig)}
    containers = configs.configure_kubeflow(
        **{name: value for name, value in given.items() if name in of_containers}
    )
    texts = environment(**given)
    beam_args = given["beam_args"] or configs.from_environment(PipelineConfig).get("beam_args", ())
    with console.noise_to(os.devnull):
        kubeflow_v2_runner.compile_pipeline(pipeline, texts, containers, path, beam_args=beam_args)
