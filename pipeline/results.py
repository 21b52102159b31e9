"""What a run left behind, read from its metadata."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from models.errors import UserError


@dataclass(frozen=True)
class Results:
    """Outcome of the newest finished run in an output folder."""

    report: str
    """Path of the HTML report."""
    pushed: str | None
    """Folder of the pushed model; `None`: not blessed, so not pushed."""
    auroc: dict[str, float]
    accuracy: float
    blessed: bool
    gates: list[tuple[str, str]]
    scores: str | None
    """Folder of the scores of `--score-images`; `None`: there are none."""


def read(output_dir: str) -> Results:
    """Reads the newest results in `output_dir`.

    Raises:
        UserError: if no run was finished there.
    """
    from ml_metadata import errors, metadata_store
    from ml_metadata.proto import metadata_store_pb2

    database = os.path.join(output_dir, "metadata.sqlite")
    missing = UserError(f"{output_dir} holds no finished run: start one with `capsad run`.")
    if not os.path.exists(database):
        raise missing
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = database
    connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READONLY
    store = metadata_store.MetadataStore(connection)

    def newest(component):
        """The component's last successful execution, cached or not."""
        finished = (
            metadata_store_pb2.Execution.COMPLETE,
            metadata_store_pb2.Execution.CACHED,
        )
        try:
            executions = store.get_executions_by_type(component)
        except errors.NotFoundError:
            raise missing from None
        executions = [e for e in executions if e.last_known_state in finished]
        if not executions:
            raise missing
        return max(executions, key=lambda execution: execution.id)

    def given(execution, artifact_type):
        """The artifact that an execution gave."""
        kind = store.get_artifact_type(artifact_type).id
        output = metadata_store_pb2.Event.OUTPUT
        events = store.get_events_by_execution_ids([execution.id])
        ids = [event.artifact_id for event in events if event.type == output]
        return next(a for a in store.get_artifacts_by_id(ids) if a.type_id == kind)

    reporting = newest(_REPORT)
    report = given(reporting, "capsad.Report").uri
    pushed = given(newest(_PUSHER), "PushedModel")
    (run,) = (
        context
        for context in store.get_contexts_by_execution(reporting.id)
        if context.type == "pipeline_run"
    )
    # Of this very run: it may have scored nothing, and one before it other images.
    scores = next(
        (
            given(execution, "InferenceResult").uri
            for execution in store.get_executions_by_context(run.id)
            if execution.type == _SCORER
        ),
        None,
    )
    summary = json.loads(Path(report, "summary.json").read_text())
    return Results(
        report=os.path.join(report, "report.html"),
        pushed=pushed.custom_properties["pushed_destination"].string_value or None,
        auroc=summary["auroc"],
        accuracy=summary["accuracy"],
        blessed=summary["blessed"],
        gates=[tuple(gate) for gate in summary["gates"]],
        scores=scores if summary["blessed"] else None,
    )


# Names under which TFX keeps the executions of these.
_REPORT = "components.evaluation.report.component.Report"
_PUSHER = "components.serving.pusher.Pusher"
_SCORER = "components.serving.batch.component.BatchScorer"
