"""Each script of examples/, as a user starts it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.serving import clients

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(tmp_path):
    def run(name, *arguments):
        return subprocess.run(
            [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    return run


@pytest.fixture
def folder(toys, to_png, tmp_path):
    """Six images, of which the last two are anomalies."""
    images, labels = toys(8, 4, seed=2)
    (tmp_path / "images").mkdir()
    chosen = [*np.flatnonzero(labels < 3)[:4], *np.flatnonzero(labels == 3)]
    for number, place in enumerate(chosen):
        (tmp_path / "images" / f"{number}.png").write_bytes(to_png(images[place]))
    return tmp_path / "images"


def test_digits(example):
    told = example("digits.py")
    assert float(re.search(r"auROC ([\d.]+)", told)[1]) > 0.85
    assert re.search(r"flagged: \d+% of the nines", told)


def test_your_folder(example, pushed, folder, tmp_path):
    told = example("your_folder.py", pushed.serving, folder)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert len(lines) == 7
    assert {"anomaly_score", "flagged"} <= set(lines[0].split(","))
    assert "0.png" in told


def test_a_network_of_ones_own(example):
    told = example("own_network.py")
    areas = [float(area) for area in re.findall(r"auROC ([\d.]+)", told)]
    alarms = [float(share) for share in re.findall(r", ([\d.]+)% of known", told)]
    assert len(areas) == 2 and min(areas) > 0.8
    assert max(alarms) < 12  # 5 % on average over calibration sets


def test_a_detector_of_ones_own(example):
    assert float(re.search(r"auROC ([\d.]+)", example("own_detector.py"))[1]) > 0.6


def test_a_client_without_our_package(example, pushed, model_server, folder):
    files = sorted(folder.iterdir())
    lines = example("client.py", model_server.rest, *files).splitlines()
    images = [file.read_bytes() for file in files]
    expected = clients.local(str(pushed.version)).score(images)["anomaly_score"]
    for line, file, score in zip(lines, files, expected, strict=True):
        verdict, told, name = line.split()
        assert name == str(file)
        assert float(told) == pytest.approx(score, abs=1e-6)
        assert verdict == ("flagged" if score > 0.95 else "normal")
