"""Reads the results of a run from its metadata."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import UserError

if TYPE_CHECKING:  # ML Metadata is loaded only when results are read.
    from ml_metadata import MetadataStore
    from ml_metadata.proto.metadata_store_pb2 import Artifact, Execution

# TFX keeps the executions of these components under these names.
_REPORT = "components.evaluation.report.component.Report"
_PUSHER = "components.serving.pusher.Pusher"
_SCORER = "components.serving.batch.component.BatchScorer"


@dataclass(frozen=True)
class Results:
    """Results of the newest finished run in an output folder."""

    report: str
    """Path of the HTML report."""
    pushed: str | None
    """Folder of the pushed model. It is `None` if the model was not blessed, and so not pushed."""
    auroc: dict[str, float]
    """Score name -> auROC on the test images."""
    pixels: dict[str, float] | None
    """`auroc`, `pro` and the number of `images` of the anomaly maps, if the data has masks."""
    accuracy: float
    """Share of the normal test images whose predicted class is right."""
    normal_classes: int
    """Number of normal classes. With one there is nothing to tell apart."""
    calibration_images: int
    """Number n of normal images for calibration: alpha must be above 1 / (n + 1)."""
    blessed: bool
    verdict: dict[str, Any]
    """The verdict, see `components.evaluation.verdict.Verdict`."""
    data: list[str]
    """Sentences about data and training: warnings, and what was left out."""
    scores: str | None
    """Folder of the scores of `--score-images`, or `None` if there are none."""


def read(output_dir: str) -> Results:
    """Reads the newest results in `output_dir`.

    Raises:
        UserError: if no run was finished there.
    """
    missing = UserError(f"{output_dir} holds no finished run: start one with `capsad run`.")
    database = os.path.join(output_dir, "metadata.sqlite")
    if not os.path.exists(database):
        raise missing
    store = _open(database)
    reporting, pushing = _newest(store, _REPORT), _newest(store, _PUSHER)
    if reporting is None or pushing is None:
        raise missing
    report = _given(store, reporting, "capsad.Report").uri
    pushed = _given(store, pushing, "PushedModel")
    summary = json.loads(Path(report, "summary.json").read_text())
    return Results(
        report=os.path.join(report, "report.html"),
        pushed=pushed.custom_properties["pushed_destination"].string_value or None,
        auroc=summary["auroc"],
        pixels=summary["pixels"],
        accuracy=summary["accuracy"],
        normal_classes=summary["normal_classes"],
        calibration_images=summary["calibration_images"],
        blessed=summary["verdict"]["blessed"],
        verdict=summary["verdict"],
        data=summary["data"],
        scores=_scores_of_the_run(store, reporting) if summary["verdict"]["blessed"] else None,
    )


def _open(database: str) -> "MetadataStore":
    from ml_metadata import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = database
    connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READONLY
    return metadata_store.MetadataStore(connection)


def _newest(store: "MetadataStore", component: str) -> "Execution | None":
    """Returns the last successful execution of a component, cached or not, if there is one."""
    from ml_metadata import errors
    from ml_metadata.proto.metadata_store_pb2 import Execution

    try:
        executions = store.get_executions_by_type(component)
    except errors.NotFoundError:
        return None
    finished = (Execution.COMPLETE, Execution.CACHED)
    return max(
        (execution for execution in executions if execution.last_known_state in finished),
        key=lambda execution: execution.id,
        default=None,
    )


def _given(store: "MetadataStore", execution: "Execution", artifact_type: str) -> "Artifact":
    """Returns the output artifact of an execution that has the given type."""
    from ml_metadata.proto.metadata_store_pb2 import Event

    kind = store.get_artifact_type(artifact_type).id
    events = store.get_events_by_execution_ids([execution.id])
    ids = [event.artifact_id for event in events if event.type == Event.OUTPUT]
    return next(a for a in store.get_artifacts_by_id(ids) if a.type_id == kind)


def _scores_of_the_run(store: "MetadataStore", reporting: "Execution") -> str | None:
    """Returns the folder of the scores of the run that made a report, if there are any.

    An earlier run does not count, because it may have scored other images.
    """
    (run,) = (
        context
        for context in store.get_contexts_by_execution(reporting.id)
        if context.type == "pipeline_run"
    )
    return next(
        (
            _given(store, execution, "InferenceResult").uri
            for execution in store.get_executions_by_context(run.id)
            if execution.type == _SCORER
        ),
        None,
    )
