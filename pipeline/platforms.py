"""What of a pipeline depends on where it runs."""

import os
from dataclasses import dataclass
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata

from pipeline.configs import PipelineConfig
from pipeline.preflight import Plan


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One place to run a pipeline."""

    pipeline_name: str
    """Name that the orchestrator accepts."""
    data_folder: str
    """Folder whose files' fingerprint TFX takes."""
    data_dir: str | None
    """The source's folder or file as the components see it."""
    fingerprint: str = ""
    """Of the data, where the orchestrator takes none."""
    pipeline_root: str = ""
    """Folder of the artifacts; empty: the orchestrator decides."""
    serving: str = ""
    """Folder that models are pushed to; empty: into the artifact of the push."""
    metadata: metadata_store_pb2.ConnectionConfig | None = None
    """Where ML Metadata lies; `None`: the orchestrator decides."""
    has_resolvers: bool = True
    """Whether a model of an earlier run can be looked up."""
    trainer: Any = None
    """What the Trainer asks of the platform, in its own message; `None`: nothing."""


def local(config: PipelineConfig, plan: Plan) -> Platform:
    """This machine, all in the output folder."""
    return Platform(
        pipeline_name=config.name,
        data_folder=plan.source.folder,
        data_dir=config.data.data_dir,
        pipeline_root=os.path.join(config.output_dir, "pipeline"),
        serving=os.path.join(config.output_dir, "serving"),
        metadata=metadata.sqlite_metadata_connection_config(
            os.path.join(config.output_dir, "metadata.sqlite")
        ),
    )
