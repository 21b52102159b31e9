"""Every command prints with --json what the schema describes, and nothing else."""

import json
import logging
import re
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from models import progress
from pipeline import cli
from pipeline.cli import console, json_output
from pipeline.cli.bars import Time
from tests.json_schema import definitions, valid_json


def capsad(*arguments, code=0):
    result = CliRunner().invoke(cli.main, [*map(str, arguments), "--json"])
    assert result.exit_code == code, result.output
    return valid_json(json.loads(result.stdout))


def commands(group, prefix=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


def test_every_command_has_it_and_a_schema():
    own = {"kubeflow-submit": "kubeflow-run"}
    for name, command in commands(cli.main):
        assert any("--json" in option.opts for option in command.params), name
        joined = "-".join(name)
        assert own.get(joined, joined) in definitions()


def test_detectors_datasets_doctor():
    found = {row["name"]: row for row in capsad("detectors")["detectors"]}
    assert found["capsnet"]["scores"] == ["conformity", "pp", "re"]
    assert {"epochs", "shift"} <= {setting["name"] for setting in found["capsnet"]["settings"]}
    found = {row["name"]: row for row in capsad("datasets")["datasets"]}
    counts = found["digits"]["images"].values()
    assert sum(sum(classes.values()) for classes in counts) == 1797
    assert found["smallnorb"]["folder"] is None and found["smallnorb"]["missing"]
    assert {"platform", "tfx"} <= {check["subject"] for check in capsad("doctor")["checks"]}


def test_inspect(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for place, name in enumerate(("bolt", "nut", "odd")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(30):
            pixels = np.random.default_rng([place, index]).integers(0, 256, (8, 9), dtype="uint8")
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index:02d}.png")
    (tmp_path / "data" / "bolt" / "a.png").write_bytes(
        (tmp_path / "data" / "nut" / "00.png").read_bytes()
    )
    found = capsad("inspect", tmp_path / "data", "--anomaly", "odd")
    assert found["images"] == 91
    assert found["sizes"] == [[9, 8]] * 3
    assert found["identical"] == [["nut/00.png", "bolt/a.png"]]
    assert set(found["run"]["splits"]) == {"train", "eval", "calibration", "test"}
    refused = capsad("inspect", tmp_path / "data", "--anomaly", "screw", code=1)
    assert refused["run"] is None and "screw" in refused["refused"]


def test_numbers_that_json_does_not_have(capsys):
    json_output.print_json("x", a=np.float32("nan"), b={"c": (np.int64(3), float("inf"))})
    assert json.loads(capsys.readouterr().out) == {
        "schema": "capsad-x-1",
        "a": None,
        "b": {"c": [3, None]},
    }


@pytest.mark.parametrize("shown", [True, False])
def test_without_a_terminal_progress_is_lines_and_quiet_is_silent(
    shown, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in Jupyter and in CI
    with console.noise_to(str(tmp_path / "log"), console.Components(shown)):
        logging.info("Component Trainer is running.")
        progress.report("training", 0.5, 2)
        progress.report("training", 1, 2, "Epoch 1 of 2: loss 0.5")
        progress.tell("Warning: that is little.")
        logging.info("Component Trainer is finished.")
    told = capsys.readouterr().out
    if shown:
        first, second, last = told.splitlines()
        assert (first, second) == ("    Epoch 1 of 2: loss 0.5", "    Warning: that is little.")
        assert last.startswith("  Trainer ")
    else:
        assert told == ""
    log = (tmp_path / "log").read_text()
    assert "Epoch 1 of 2" in log and "0.5 of 2" not in log


def test_on_a_terminal_progress_is_a_bar_with_the_time_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    display = console.Components(shown=True)
    with console.noise_to(str(tmp_path / "log"), display):
        logging.info("Component Trainer is running.")
        for done in (1, 2, 3):
            progress.report("training", done, 4, f"Epoch {done} of 4: loss 0.5")
        (bar,) = display._bars.tasks
        assert (bar.description, bar.completed, bar.total) == ("Trainer training", 3, 4)
        assert re.fullmatch(r"0:00:0\d left", str(Time().render(bar)))
        progress.report("features", 1, 8)
        (bar,) = display._bars.tasks
        assert (bar.description, bar.completed, bar.total) == ("Trainer features", 1, 8)
        display._bars.refresh()
        logging.info("Component Trainer is finished.")
        assert not display._bars.tasks
    told = capsys.readouterr().out
    assert "Trainer features" in told
    assert re.search(r"  Trainer  +\d+\.\d s\n", told)
    assert "Epoch 1 of 4" not in told


def test_no_color():
    doctor = ["doctor"]
    plain = CliRunner().invoke(cli.main, doctor, color=True, env={"NO_COLOR": "1"})
    coloured = CliRunner().invoke(cli.main, doctor, color=True)
    assert "\x1b[" not in plain.output
    assert "\x1b[32m" in coloured.output
