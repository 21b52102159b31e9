import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline import cli


@pytest.fixture
def capsad(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.main, ["score", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path, toys, to_png):
    """40 images, one of them cut, and a file that is none."""
    images, _ = toys(40, 3, seed=9)
    images[30:] = np.random.default_rng(1).integers(0, 256, images[30:].shape)
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(images):
        (folder / f"{index:02d}.png").write_bytes(to_png(image))
    (folder / "03.png").write_bytes(to_png(images[3])[:60])
    (folder / "readme.txt").write_text("no image")
    return folder


def test_a_folder_is_scored_by_the_pushed_model(capsad, folder, pushed, toys):
    result = capsad(pushed.serving.parent, folder, "--format", "csv", "--alpha", "0.2")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    names = [f"{index:02d}.png" for index in range(40) if index != 3]
    assert [os.path.basename(row["image"]) for row in rows] == names
    assert re.fullmatch(
        r".*/images/03.png: Invalid PNG data, size 60\n"
        r"1 file ignored, because no image: .*/images/readme.txt\n39 scored, 1 unreadable\n",
        result.stderr,
    )
    images = np.delete(toys(40, 3, seed=9)[0][:30], 3, axis=0)
    expected = {name: np.asarray(values) for name, values in pushed.scorer(images).items()}
    for name in ("anomaly_score", "conformity", "pp", "re"):
        values = [float(row[name]) for row in rows[:29]]
        np.testing.assert_allclose(values, expected[name], atol=1e-5)
    for row in rows:
        assert row["flagged"] == str(float(row["anomaly_score"]) > 0.8)
    assert {row["flagged"] for row in rows} == {"True", "False"}


def test_scoring_does_not_load_keras_which_takes_more_than_a_second(folder, pushed):
    code = (
        "import os, sys\n"
        "from pipeline import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        "print([name for name in ('tensorflow', 'keras', 'tfx') if name in sys.modules])\n"
        "print('TF_USE_LEGACY_KERAS' in os.environ)\n"
        "import keras, tensorflow as tf\n"
        "print(tf.keras.Model is keras.Model)\n"
    )
    arguments = ("score", pushed.serving.parent, folder / "00.png", "--format", "csv")
    # TensorFlow Transform, which TFX imports here, sets the variable for good.
    environment = {key: value for key, value in os.environ.items() if "LEGACY_KERAS" not in key}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.stdout.splitlines()[-3:] == ["['tensorflow']", "False", "True"], done.stderr


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_server_gives_the_same_as_the_pushed_model(
    capsad, folder, pushed, model_server, protocol
):
    local = capsad(pushed.version, folder, "--format", "jsonl")
    served = capsad("--url", getattr(model_server, protocol), folder, "--format", "jsonl")
    assert served.exit_code == 0, served.output
    assert served.stderr == local.stderr
    lines = [[json.loads(line) for line in r.stdout.splitlines()] for r in (local, served)]
    assert len(lines[0]) == 39
    for one, other in zip(*lines, strict=True):
        assert one == {
            name: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
            for name, value in other.items()
        }


def test_a_terminal_shows_a_count_and_no_noise(folder, pushed, tmp_path):
    terminal, side = os.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli import main; main()", "score"]
        + [str(pushed.serving), str(folder), "--output", str(tmp_path / "scores")],
        env={**environment, "TERM": "xterm", "COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=side,
    )
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):  # what a closed terminal gives
        while part := os.read(terminal, 10_000):
            shown += part
    os.close(terminal)
    assert process.communicate()[0] == b"" and process.returncode == 0
    assert process.returncode == 0
    bar, *messages = [
        line
        for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown.decode()))
        if line
    ]
    bars = [line for line in [bar, *messages] if line.startswith("  Scoring ━")]
    assert bar in bars and re.search(r" 100% 0:00:00 left *$", bars[-1])
    message, left_out, summary = [line.rstrip() for line in messages if line not in bars]
    assert re.fullmatch(r".*03.png: Invalid PNG data, size 60", message)
    assert re.fullmatch(r"1 file ignored, because no image: .*readme.txt", left_out)
    assert summary == "39 scored, 1 unreadable"


def test_output_appears_whole_or_not_at_all(capsad, folder, pushed, monkeypatch, tmp_path):
    result = capsad(pushed.serving, folder, "--output", "scores.txt")
    assert result.exit_code == 0 and result.stdout == ""
    before = (tmp_path / "scores.txt").read_text()
    assert len(before.splitlines()) == 40

    from components.serving import runner
    from models.errors import UserError

    real = runner.SavedModelClient.score

    def fails_in_the_second_batch(self, images):
        if len(images) == 8:
            raise UserError("Gone.")
        return real(self, images)

    monkeypatch.setattr(runner.SavedModelClient, "score", fails_in_the_second_batch)
    (folder / "03.png").write_bytes((folder / "04.png").read_bytes())
    result = capsad(pushed.serving, folder, "--output", "scores.txt")
    assert (result.exit_code, result.stderr) == (2, "Error: Gone.\n")
    assert (tmp_path / "scores.txt").read_text() == before
    assert sorted(os.listdir(tmp_path)) == ["images", "scores.txt"]


def test_nothing_scored_is_exit_code_1(capsad, folder, pushed, tmp_path):
    result = capsad(pushed.serving, folder / "03.png", folder / "readme.txt", "--output", "out")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 3
    assert "Error: No image was scored: 2 unreadable file(s) in" in result.stderr
    (tmp_path / "empty").mkdir()
    assert capsad(pushed.serving, tmp_path / "empty").exit_code == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give images or folders"),
        (["."], "Give images or folders"),
        (["--url", "http://localhost:8501"], "Give images or folders"),
        (["--url", "localhost:8501", "."], "must be http://HOST:PORT or grpc"),
        (["nowhere", "."], "nowhere does not exist"),
        ([".", "nowhere.png"], "nowhere.png does not exist"),
        ([".", "."], "holds no pushed model"),
        ([".", ".", "--alpha", "0"], "--alpha"),
        ([".", ".", "--format", "xml"], "--format"),
        (["--url", "http://localhost:1", "--timeout", "0", "."], "--timeout"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsad, arguments, message, tmp_path):
    result = capsad(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not os.listdir(tmp_path)


def test_an_output_that_cannot_be_written(capsad, folder, pushed):
    result = capsad(pushed.serving, folder / "00.png", "--output", "nowhere/scores.csv")
    assert result.exit_code == 2
    assert "The folder nowhere does not exist: make it first." in result.stderr
    assert "See --output" in result.stderr
