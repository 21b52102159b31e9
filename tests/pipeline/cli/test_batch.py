import tempfile

import pytest
from click.testing import CliRunner

from components.serving import runner
from components.serving.batch import pipeline as batch
from models.errors import UserError
from pipeline import cli


@pytest.fixture(autouse=True)
def logs(tmp_path, monkeypatch):
    """Lists the logs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: list(tmp_path.glob("capsad-*.log"))


def run(monkeypatch, outcome, *options):
    given = {}

    def stand_in(pipeline, model, inputs, output, *, output_format, **limits):
        given.update({"runner": type(pipeline.runner).__name__, "model": model})
        given.update({"inputs": list(inputs), "output": output, "format": output_format})
        given.update(limits)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(batch, "score_all", stand_in)
    monkeypatch.setattr(runner, "newest_version", lambda model: model)
    arguments = ("model", "a", "b", "--beam", "--output", "out", *options)
    return CliRunner().invoke(cli.main, ["score", *arguments]), given


def test_what_is_handed_on(monkeypatch, logs):
    options = ("--format", "parquet", "--max-dead", "0.25", "--max-pixels", "99")
    result, given = run(monkeypatch, batch.Counts(5, 2), *options)
    assert given == {
        "runner": "FnApiRunner",
        "model": "model",
        "inputs": ["a", "b"],
        "output": "out",
        "format": "parquet",
        "max_dead": 0.25,
        "max_pixels": 99,
    }
    assert result.output == "5 images scored, 2 could not be.\n"
    assert logs() == []


def test_variables_stand_in_for_options(monkeypatch):
    monkeypatch.setenv("CAPSAD_BEAM_ARGS", "--runner=DirectRunner --direct_num_workers=1")
    monkeypatch.setenv("CAPSAD_MAX_PIXELS", "98")
    result, given = run(monkeypatch, batch.Counts(5, 2))
    assert result.exit_code == 0, result.output
    assert given["runner"] != "FnApiRunner"
    assert given["max_pixels"] == 98
    _, given = run(monkeypatch, batch.Counts(5, 2), "--beam-arg=--runner=FnApiRunner")
    assert given["runner"] == "FnApiRunner"


def test_bad_input_leaves_no_log(monkeypatch, logs):
    result, _ = run(monkeypatch, UserError("wrong"))
    assert (result.exit_code, result.output) == (2, "Error: wrong\n")
    assert logs() == []


def test_a_failure_names_its_log(monkeypatch, logs):
    result, _ = run(monkeypatch, RuntimeError("no connection\nand much more"))
    (log,) = logs()
    assert result.exit_code == 1
    assert result.output == (f"Error: Scoring failed: RuntimeError: no connection. See {log}\n")
    assert "and much more" in log.read_text()
