import tempfile

import pytest

from components.batch_scoring import score
from components.scoring import saved_model
from models.errors import UserError
from pipeline import score_beam
from pipeline.run import RunFailed


@pytest.fixture(autouse=True)
def logs(tmp_path, monkeypatch):
    """Lists the logs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: list(tmp_path.glob("capsad-score-*"))


def run(monkeypatch, outcome):
    def stand_in(pipeline, model, inputs, output, *, output_format):
        given = {"runner": type(pipeline.runner).__name__, "model": model, "inputs": inputs}
        given |= {"output": output, "format": output_format}
        if isinstance(outcome, Exception):
            raise outcome
        return given

    monkeypatch.setattr(score, "score", stand_in)
    monkeypatch.setattr(saved_model, "newest_version", lambda model: model)
    return score_beam.score_by_beam("model", ["a", "b"], "out", "parquet")


def test_what_is_handed_on(monkeypatch, logs, capfd):
    assert run(monkeypatch, None) == {
        "runner": "FnApiRunner",
        "model": "model",
        "inputs": ["a", "b"],
        "output": "out",
        "format": "parquet",
    }
    assert logs() == []
    assert capfd.readouterr().err == ""


def test_bad_input_leaves_no_log(monkeypatch, logs):
    with pytest.raises(UserError, match="^wrong$"):
        run(monkeypatch, UserError("wrong"))
    assert logs() == []


def test_a_failure_names_its_log(monkeypatch, logs):
    with pytest.raises(RunFailed) as raised:
        run(monkeypatch, RuntimeError("no connection\nand much more"))
    (log,) = logs()
    assert str(raised.value) == f"Scoring failed: RuntimeError: no connection. See {log}"
    assert "and much more" in log.read_text()
