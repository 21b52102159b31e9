"""Reads the results of a run from its metadata."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import UserError
from pipeline.artifacts import ARTIFACTS, DATABASE, SERVING, check_database

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
        UserError: if no run was finished there, or something of it is damaged or gone.
    """
    missing = UserError(f"{output_dir} holds no finished run: start one with `capsad run`.")
    output = Path(output_dir)
    if not (output / DATABASE).exists():
        raise missing
    check_database(output)
    store = _open(str(output / DATABASE))
    pushing = _newest(store, _PUSHER)
    if pushing is None:
        raise missing
    (run,) = (
        context
        for context in store.get_contexts_by_execution(pushing.id)
        if context.type == "pipeline_run"
    )
    # All of one run, because another may be on its way.
    executions = {found.type: found for found in store.get_executions_by_context(run.id)}
    report = _folder(output, _given(store, executions[_REPORT], "capsad.Report"))
    pushed = _given(store, pushing, "PushedModel")
    try:
        summary = json.loads((report / "summary.json").read_text())
        scored = executions.get(_SCORER) if summary["verdict"]["blessed"] else None
        return Results(
            report=str(report / "report.html"),
            pushed=_pushed(output, pushed),
            auroc=summary["auroc"],
            pixels=summary["pixels"],
            accuracy=summary["accuracy"],
            normal_classes=summary["normal_classes"],
            calibration_images=summary["calibration_images"],
            blessed=summary["verdict"]["blessed"],
            verdict=summary["verdict"],
            data=summary["data"],
            scores=scored and str(_folder(output, _given(store, scored, "InferenceResult"))),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"The report in {report} is damaged or gone: give the same `capsad run` command again, "
            "which makes it anew."
        ) from error


def _pushed(output: Path, artifact: "Artifact") -> str | None:
    destination = artifact.custom_properties["pushed_destination"].string_value
    return str(output / SERVING / Path(destination).name) if destination else None


def _folder(output: Path, artifact: "Artifact") -> Path:
    """The folder of an artifact, also if the output folder was moved."""
    return output / ARTIFACTS / Path(*Path(artifact.uri).parts[-3:])


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
