"""Results are those of one run, also while another is on its way, or something is gone."""

import json

import pytest
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from models.errors import UserError
from pipeline import results

_REPORT = "components.evaluation.report.component.Report"
_PUSHER = "components.serving.pusher.Pusher"
SUMMARY = {
    "auroc": {"anomaly_score": 0.9},
    "pixels": None,
    "accuracy": 1.0,
    "normal_classes": 2,
    "calibration_images": 50,
    "verdict": {"blessed": True, "headline": "", "reason": "", "checks": []},
    "data": [],
}


@pytest.fixture
def add_run(tmp_path):
    """Records a run as TFX does; its Pusher may still be at work."""
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(tmp_path / "metadata.sqlite")
    store = metadata_store.MetadataStore(config)
    run_type = store.put_context_type(mlmd.ContextType(name="pipeline_run"))

    def execute(context, kind, artifact_type, state, uri, **texts):
        execution = mlmd.Execution(
            type_id=store.put_execution_type(mlmd.ExecutionType(name=kind)),
            last_known_state=state,
        )
        artifact = mlmd.Artifact(
            type_id=store.put_artifact_type(mlmd.ArtifactType(name=artifact_type)), uri=str(uri)
        )
        for name, text in texts.items():
            artifact.custom_properties[name].string_value = text
        event = mlmd.Event(type=mlmd.Event.OUTPUT)
        store.put_execution(execution, [(artifact, event)], [context])

    def add(number, pusher=mlmd.Execution.COMPLETE):
        (context,) = store.put_contexts([mlmd.Context(type_id=run_type, name=f"run {number}")])
        context = store.get_contexts_by_id([context])[0]
        report = tmp_path / "pipeline" / "Report" / "report" / str(number)
        report.mkdir(parents=True)
        (report / "summary.json").write_text(json.dumps(SUMMARY))
        done = mlmd.Execution.COMPLETE
        execute(context, _REPORT, "capsad.Report", done, f"/elsewhere/Report/report/{number}")
        execute(
            *(context, _PUSHER, "PushedModel", pusher, f"/elsewhere/Pusher/pushed_model/{number}"),
            pushed_destination=f"/elsewhere/serving/{number}",
        )
        return report

    return add


def test_report_and_model_are_of_the_same_run(add_run, tmp_path):
    first = add_run(1)
    add_run(2, pusher=mlmd.Execution.RUNNING)
    found = results.read(str(tmp_path))
    assert found.report == str(first / "report.html")
    assert found.pushed == str(tmp_path / "serving" / "1")  # also where the folder was moved to
    third = add_run(3)
    assert results.read(str(tmp_path)).report == str(third / "report.html")


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"verdict": {}}', "[]"])
def test_a_report_that_is_gone_or_damaged_is_one_sentence(content, add_run, tmp_path):
    summary = add_run(1) / "summary.json"
    summary.unlink() if content is None else summary.write_text(content)
    with pytest.raises(UserError, match=r"The report in .*/1 is damaged or gone: give the same"):
        results.read(str(tmp_path))


def test_without_a_finished_run(add_run, tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        results.read(str(tmp_path))
    add_run(1, pusher=mlmd.Execution.RUNNING)
    with pytest.raises(UserError, match="holds no finished run"):
        results.read(str(tmp_path))
