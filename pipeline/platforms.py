"""What depends on where a pipeline runs."""

import os
from dataclasses import dataclass

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata

from pipeline.artifacts import ARTIFACTS, DATABASE, SERVING
from pipeline.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One place to run a pipeline."""

    pipeline_name: str
    """Name that the orchestrator accepts."""
    data_dir: str | None
    """Folder or file of the data as the components see it."""
    held_out: str | None
    """Path of the plan's `HeldOut` as ExampleGen sees it; `None`: it makes its own."""
    pipeline_root: str = ""
    """Folder of the artifacts; empty: the orchestrator decides."""
    serving: str = ""
    """Folder that models are pushed to; empty: the artifact of the push."""
    metadata: metadata_store_pb2.ConnectionConfig | None = None
    """Where ML Metadata lies; `None`: the orchestrator decides."""
    has_resolvers: bool = True
    """Whether a model of an earlier run can be looked up."""


def local(plan: Plan) -> Platform:
    """This machine, with everything in the output folder."""
    pipeline_root = os.path.join(plan.output, ARTIFACTS)
    return Platform(
        pipeline_name=plan.config.name,
        data_dir=plan.config.data.location,
        held_out=plan.held_out.save(os.path.join(pipeline_root, "plan")),
        pipeline_root=pipeline_root,
        serving=os.path.join(plan.output, SERVING),
        metadata=metadata.sqlite_metadata_connection_config(os.path.join(plan.output, DATABASE)),
    )


def kubeflow(name: str, data_dir: str | None = None) -> Platform:
    """Kubeflow Pipelines.

    Args:
        name: name of the pipeline.
        data_dir: folder or file of the data as the containers see it; `None`: the source looks.
    """
    return Platform(
        pipeline_name=name.replace("_", "-"),
        data_dir=data_dir,
        held_out=None,
        # The open-source backend cannot run resolvers: "resolver executors not implemented".
        has_resolvers=False,
    )
