"""Compiles a pipeline for Kubeflow Pipelines and submits it.

This needs kfp, which must not be in the environment of the TFX command. Therefore kfp is imported
only in the functions that need it.
"""

import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import UserError
from models.files import publish
from pipeline.configs import KubeflowConfig, Resources
from pipeline.plan import Plan

if TYPE_CHECKING:
    from pipeline.platforms import Platform

COMMAND = ("python", "-m", "pipeline.kubeflow.entrypoint")


def compile_pipeline(plan: Plan, kubeflow: KubeflowConfig, path: str) -> None:
    """Writes the pipeline specification (schema 2.1, YAML) to `path`.

    Raises:
        UserError: if kfp is missing, if only this machine knows where the data is, or if `path`
            cannot be written.
    """
    _require_kfp()
    # TFX is imported here, because the import takes more than ten seconds.
    from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
        KubeflowV2DagRunner,
        KubeflowV2DagRunnerConfig,
    )

    from pipeline.pipeline import create_pipeline

    pipeline = create_pipeline(plan, platform(plan, kubeflow))
    runner_config = KubeflowV2DagRunnerConfig(
        default_image=kubeflow.image,
        default_commands=list(COMMAND),
        use_pipeline_spec_2_1=True,  # The open-source backend reads only this version.
    )
    target = Path(path).absolute()
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            KubeflowV2DagRunner(runner_config, folder, "pipeline.yaml").run(pipeline)
            publish(Path(folder, "pipeline.yaml"), target)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error


def platform(plan: Plan, kubeflow: KubeflowConfig) -> "Platform":
    """Describes Kubeflow for `create_pipeline`.

    Raises:
        UserError: if only this machine knows where the data is.
    """
    from pipeline.platforms import Platform

    location = plan.config.data.location
    if location is not None and kubeflow.data_dir is None:
        raise UserError(
            f"The containers do not see {location}: give the folder where they find the data.",
            "data_dir",
        )
    return Platform(
        pipeline_name=plan.config.name.replace("_", "-"),
        data_dir=kubeflow.data_dir,
        held_out=None,
        # The open-source backend cannot run resolvers: "resolver executors not implemented".
        has_resolvers=False,
        trainer=_resources(kubeflow.trainer),
    )


def submit(
    path: str, host: str, *, name: str, pipeline_root: str | None, namespace: str | None
) -> str:
    """Starts a run of the specification in `path`.

    Args:
        path: path of the specification.
        host: address of Kubeflow Pipelines.
        name: name of the run.
        pipeline_root: URI of the folder for the artifacts. `None` means the cluster's own folder.
        namespace: namespace of the run. It must be `None` if Kubeflow has only one user.

    Returns:
        Address of the run.

    Raises:
        UserError: if kfp is missing, or if Kubeflow does not accept the run.
    """
    _require_kfp()
    import kfp
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        run = kfp.Client(host=host).create_run_from_pipeline_package(
            path, run_name=name, pipeline_root=pipeline_root, namespace=namespace
        )
    except (ApiException, HTTPError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"Kubeflow at {host} did not accept the run: {reason}", "host") from error
    return f"{host.rstrip('/')}/#/runs/details/{run.run_id}"


def _require_kfp() -> None:
    if importlib.util.find_spec("kfp") is None:
        raise UserError(
            "Kubeflow needs kfp, which is not installed: make a second environment and install "
            "'capsad[kubeflow]' there, see BUILD.md."
        )


def _resources(resources: Resources) -> Any:
    """Makes the request for resources as a message of kfp, or `None` if nothing is requested."""
    if resources == Resources():
        return None
    from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineDeploymentConfig

    spec = PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec(
        cpu_limit=resources.cpus or 0, memory_limit=resources.memory_gb or 0
    )
    if resources.gpus:
        spec.accelerator.type = resources.gpu_type
        spec.accelerator.count = resources.gpus
    return spec
