"""Outputs that cannot be written are refused before any work, and nothing is lost."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline import cli, configs
from pipeline.parameters import OutputFile

COMMANDS = {
    "folder": [
        ["run", "digits", "--output"],
        ["study", "digits", "--output"],
        ["score", "model", "images", "--heatmaps"],
        ["score", "model", "images", "--beam", "--output"],
    ],
    "file": [
        ["score", "model", "images", "--output"],
        ["compare", "run", "other", "--output"],
        ["watch", "scores.csv", "--figure"],
        ["kubeflow", "compile", "digits", "--image", "x", "--output"],
    ],
}
WRONG = {
    "folder": ["a file", "a file/below", "a file/below/it", "a pipe", "/proc/x", "a broken link"],
    "file": ["a folder", "a file/below", "nowhere/x", "/proc/x"],
}


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (command, output)
        for kind in COMMANDS
        for command in COMMANDS[kind]
        for output in WRONG[kind]
    ],
)
def test_an_output_that_cannot_be_is_refused_at_once(command, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "images", "a folder"):
        os.mkdir(folder)
        Path(folder, "kept").write_text(folder)
    Path("a file").write_text("kept")
    os.mkfifo("a pipe")
    os.symlink("gone/away", "a broken link")
    before = sorted(str(path) for path in tmp_path.rglob("*"))

    result = CliRunner().invoke(cli.main, [*command, output])
    assert result.exit_code == 2, result.output
    assert sum(line.startswith("Error: ") for line in result.output.splitlines()) == 1
    option = command[-1]
    assert option in result.output
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert Path("a file").read_text() == "kept"


@pytest.mark.parametrize("sign", "[*?")
def test_what_is_taken_for_a_pattern_is_refused_at_once(sign, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / f"a{sign}b"
    for folder in ("model", "images", other):
        os.mkdir(folder)
    for command in (["run", "digits"], ["score", "model", "images", "--beam"]):
        result = CliRunner().invoke(cli.main, [*command, "--output", f"out{sign}1]"])
        assert result.exit_code == 2
        assert f"The {sign} in the output's path {tmp_path}/out" in result.output
    assert "The \\ in" in CliRunner().invoke(cli.main, ["run", "digits", "--output", "a\\b"]).output
    monkeypatch.chdir(other)
    assert f"{other}/runs" in CliRunner().invoke(cli.main, ["run", "digits"]).output
    assert not os.listdir(other) and len(os.listdir(tmp_path)) == 3


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CAPSAD_OUTPUT", "~/runs")
    assert configs.configure("digits").output == str(tmp_path / "runs")
    assert OutputFile().convert("~/scores.csv", None, None) == str(tmp_path / "scores.csv")


def test_what_is_scored_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("model")
    Path("x.png").write_bytes(b"image")
    result = CliRunner().invoke(cli.main, ["score", "model", "x.png", "--output", "./x.png"])
    assert result.exit_code == 2
    assert "./x.png is also scored: give another file." in result.output
    assert Path("x.png").read_bytes() == b"image"
