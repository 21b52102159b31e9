"""The commands `capsad kubeflow`."""

import functools
import os
import tempfile
from collections.abc import Callable

import click

from pipeline import configs, console, options


@click.group()
def kubeflow() -> None:
    """Compile a pipeline for Kubeflow Pipelines, or run it there.

    The data is looked at on this machine, to plan the run: --images, or where `capsad datasets`
    finds it. The containers read it at --data-dir.
    """


_positive = click.FloatRange(min=0, min_open=True)


def _containers(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of `KubeflowConfig` and hands them over as one."""

    @click.option("--image", required=True, metavar="IMAGE", help="The containers' image.")
    @click.option(
        "--data-dir",
        metavar="DIR",
        help="The data as the containers see it: an absolute path, gs:// or s3://.",
    )
    @click.option("--cpus", type=_positive, help="CPU cores for the Trainer.")
    @click.option("--memory-gb", type=_positive, help="Memory for the Trainer, in gigabytes.")
    @click.option("--gpus", type=click.IntRange(min=0), default=0, help="GPUs for the Trainer.")
    @click.option(
        "--gpu-type",
        metavar="TYPE",
        default=configs.Resources.gpu_type,
        show_default=True,
        help="Resource name of these GPUs.",
    )
    @functools.wraps(command)
    def wrapped(image, data_dir, cpus, memory_gb, gpus, gpu_type, **others):
        trainer = configs.Resources(cpus=cpus, memory_gb=memory_gb, gpus=gpus, gpu_type=gpu_type)
        config = configs.KubeflowConfig(image=image, data_dir=data_dir, trainer=trainer)
        return command(config, **others)

    return wrapped


@kubeflow.command("compile")
@options.of_a_run
@_containers
@click.option("--output", metavar="FILE", help="File to write.  [NAME.yaml]")
def compile_command(containers, name, images, output, **overrides) -> None:
    """Write the specification of the pipeline NAME, to be uploaded by hand or by other tools."""
    config = options.configure(name, images, **overrides)
    output = output or f"{config.name}.yaml"
    _compile(config, containers, output)
    click.echo(f"Written to {output}")


@kubeflow.command("run")
@options.of_a_run
@_containers
@click.option("--host", required=True, metavar="URL", help="Address of Kubeflow Pipelines.")
@click.option("--namespace", help="Namespace of the run, for a Kubeflow of several users.")
@click.option(
    "--pipeline-root",
    metavar="URI",
    help="Folder for the artifacts: gs://, s3:// or minio://.  [the cluster's own]",
)
def run_command(containers, name, images, host, namespace, pipeline_root, **overrides) -> None:
    """Compile the pipeline NAME and start a run of it on Kubeflow Pipelines."""
    from pipeline import kubeflow_runner

    config = options.configure(name, images, **overrides)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"{config.name}.yaml")
        _compile(config, containers, path)
        address = kubeflow_runner.submit(
            path, host, name=config.name, pipeline_root=pipeline_root, namespace=namespace
        )
    click.echo(f"Started: {address}")


def _compile(config, containers, path):
    from pipeline import kubeflow_runner

    with console.noise_to(os.devnull):
        kubeflow_runner.compile_pipeline(config, containers, path)
