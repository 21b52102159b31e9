"""Outputs that cannot be written are refused before any work, and nothing is lost."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline import cli

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


def test_what_is_scored_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("model")
    Path("x.png").write_bytes(b"image")
    result = CliRunner().invoke(cli.main, ["score", "model", "x.png", "--output", "./x.png"])
    assert result.exit_code == 2
    assert "./x.png is also scored: give another file." in result.output
    assert Path("x.png").read_bytes() == b"image"
