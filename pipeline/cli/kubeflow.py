"""The commands `capsad kubeflow`."""

import os
import tempfile
from typing import Any

import click

from pipeline import configs
from pipeline.cli import console
from pipeline.cli.options import Command, knob_options
from pipeline.configs import KubeflowConfig, PipelineConfig
from pipeline.knobs import knobs
from pipeline.parameters import OutputFile
from pipeline.plan import plan

# These knobs have no meaning in containers, or KubeflowConfig has a knob of the same name.
_LOCAL = ("data_dir", "output", "score_images", "infra_validation")
_PARAMETERS = [
    *knob_options(PipelineConfig, without=_LOCAL),
    *knob_options(KubeflowConfig),
]


@click.group()
def kubeflow() -> None:
    """Compile a pipeline for Kubeflow Pipelines, or run it there.

    To plan the run, the data must also be on this machine: in --images, or where `capsad datasets`
    finds it.

    The containers read the data from --data-dir.
    """


@kubeflow.command("compile", cls=Command, params=list(_PARAMETERS))
@click.argument("name", required=False)
@click.option(
    "--output", type=OutputFile(), metavar="FILE", help="File to write.  [default: NAME.yaml]"
)
def compile_command(name: str | None, output: str | None, **given: Any) -> None:
    """Write the specification of the pipeline NAME, which can then be uploaded."""
    config, containers = _configure(name, given)
    output = output or f"{config.name}.yaml"
    _compile(config, containers, output)
    click.echo(f"Written to {output}")


@kubeflow.command("run", cls=Command, params=list(_PARAMETERS))
@click.argument("name", required=False)
@click.option("--host", required=True, metavar="URL", help="Address of Kubeflow Pipelines.")
@click.option("--namespace", help="Namespace of the run, for a Kubeflow of several users.")
@click.option(
    "--pipeline-root",
    metavar="URI",
    help="Folder for the artifacts: gs://, s3:// or minio://.  [default: the cluster's own]",
)
def run_command(
    name: str | None, host: str, namespace: str | None, pipeline_root: str | None, **given: Any
) -> None:
    """Compile the pipeline NAME and start a run of it on Kubeflow Pipelines."""
    from pipeline import kubeflow_runner  # It is imported here, because it takes a while to load.

    config, containers = _configure(name, given)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"{config.name}.yaml")
        _compile(config, containers, path)
        address = kubeflow_runner.submit(
            path, host, name=config.name, pipeline_root=pipeline_root, namespace=namespace
        )
    click.echo(f"Started: {address}")


def _configure(name: str | None, given: dict[str, Any]) -> tuple[PipelineConfig, KubeflowConfig]:
    of_containers = {knob.name for knob in knobs(KubeflowConfig)}
    containers = {key: value for key, value in given.items() if key in of_containers}
    others = {key: value for key, value in given.items() if key not in of_containers}
    return configs.configure(name, **others), configs.configure_kubeflow(**containers)


def _compile(config: PipelineConfig, containers: KubeflowConfig, path: str) -> None:
    from pipeline import kubeflow_runner

    with console.noise_to(os.devnull):
        kubeflow_runner.compile_pipeline(plan(config), containers, path)
