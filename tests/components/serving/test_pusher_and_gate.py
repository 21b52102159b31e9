import os

import pytest
from google.protobuf import json_format
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts

from components.data.data_gate import DataGate
from components.serving.pusher import AtomicExecutor
from components.serving.sums import write_sums
from models.errors import UserError


def artifact(kind, uri, **properties):
    made = kind()
    made.uri = str(uri)
    for name, value in properties.items():
        made.set_int_custom_property(name, value)
    return made


@pytest.fixture
def push(tmp_path):
    serving = tmp_path / "model" / "Format-Serving"
    serving.mkdir(parents=True)
    (serving / "saved_model.pb").write_bytes(b"weights")
    write_sums(str(serving))

    def run(blessed, base=tmp_path / "serving"):
        pushed = artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
        blessing = artifact(
            standard_artifacts.ModelBlessing, tmp_path / "blessing", blessed=int(blessed)
        )
        destination = pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(base))
        )
        AtomicExecutor().Do(
            {
                "model": [artifact(standard_artifacts.Model, tmp_path / "model")],
                "model_blessing": [blessing],
            },
            {"pushed_model": [pushed]},
            {"push_destination": json_format.MessageToJson(destination), "custom_config": "null"},
        )
        return pushed

    return run


def test_a_blessed_model_appears_whole(push, tmp_path):
    pushed = push(blessed=True)
    (version,) = os.listdir(tmp_path / "serving")
    assert version.isdecimal()
    assert (tmp_path / "serving" / version / "saved_model.pb").read_bytes() == b"weights"
    destination = pushed.get_string_custom_property("pushed_destination")
    assert destination == str(tmp_path / "serving" / version)


def test_a_damaged_model_is_not_pushed(push, tmp_path):
    (tmp_path / "model" / "Format-Serving" / "saved_model.pb").write_bytes(b"weight")
    with pytest.raises(UserError, match="is damaged, because saved_model.pb is changed"):
        push(blessed=True)
    assert os.listdir(tmp_path / "serving") == []


def test_without_a_base_directory_the_artifact_holds_the_version(push, tmp_path):
    pushed = push(blessed=True, base="")
    version = pushed.get_string_custom_property("pushed_version")
    assert (tmp_path / "pushed" / version / "saved_model.pb").read_bytes() == b"weights"
    destination = pushed.get_string_custom_property("pushed_destination")
    assert destination == str(tmp_path / "pushed" / version)
    assert set(os.listdir(tmp_path)) == {"model", "pushed"}


def test_an_unblessed_model_does_not(push, tmp_path):
    push(blessed=False)
    assert not (tmp_path / "serving").exists() or not os.listdir(tmp_path / "serving")


def test_what_a_killed_push_left_is_cleared(push, tmp_path):
    left = tmp_path / "serving" / ".incoming" / "123"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    push(blessed=True)
    (version,) = os.listdir(tmp_path / "serving")
    assert version != ".incoming"
    assert os.path.exists(tmp_path / "serving" / version / "saved_model.pb")


def test_the_model_is_not_seen_before_it_is_whole(push, tmp_path, monkeypatch):
    seen = []
    real = os.replace

    def spy(source, target):
        seen.append([name for name in os.listdir(tmp_path / "serving") if name.isdecimal()])
        real(source, target)

    monkeypatch.setattr(os, "replace", spy)
    push(blessed=True)
    assert seen[-1] == []


@pytest.mark.parametrize("split", ["train", "calibration"])
def test_recorded_anomalies_stop_the_run(split, tmp_path):
    anomalies = artifact(standard_artifacts.ExampleAnomalies, tmp_path)
    anomalies.split_names = '["train", "calibration"]'
    for name in ("train", "calibration"):
        record = anomalies_pb2.Anomalies()
        if name == split:
            record.anomaly_info["is_anomaly"].description = "Unexpectedly high value: 1>0."
        (tmp_path / f"Split-{name}").mkdir()
        (tmp_path / f"Split-{name}" / "SchemaDiff.pb").write_bytes(record.SerializeToString())
    with pytest.raises(UserError, match=f"split '{split}', feature 'is_anomaly': Unexpectedly"):
        DataGate.EXECUTOR_SPEC.executor_class().Do({"anomalies": [anomalies]}, {}, {"digest": ""})
