"""Runs that must stop, and runs on a user's own images."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from components.data.protocol import TRAIN, hold_out
from components.data.sources.digits import Digits
from models.errors import UserError
from pipeline import cli, configs
from pipeline.cli.console import Components
from pipeline.cli.run import execute
from pipeline.plan import plan
from tests.conftest import lively_weights
from tests.json_schema import valid_json

pytestmark = pytest.mark.slow

SMALL = (
    *("--image-size", "12", "--epochs", "4", "--set", "filters=16", "--set", "kernel_size=3"),
    *("--set", "primary_types=4", "--set", "primary_kernel_size=3", "--set", "batch_size=20"),
    *("--set", "learning_rate=0.01"),
)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_an_anomaly_planted_in_train_stops_the_run(monkeypatch, tmp_path):
    reads, real = [], Digits.labels
    monkeypatch.setattr(Digits, "labels", lambda self: reads.append(1) or real(self))

    def careless(index, anomaly, **options):
        held_out = hold_out(index, anomaly, **options)
        planted = np.flatnonzero(index.parts["train"].labels == anomaly[0])[0]
        held_out.splits["train"][planted] = TRAIN
        return held_out

    monkeypatch.setattr(sys.modules["pipeline.plan"], "hold_out", careless)
    config = configs.override(configs.get("digits"), epochs=1, output=str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"does not fit the schema.*'train'.*'is_anomaly'"):
        execute(plan(config), Components(shown=False))
    assert not list((tmp_path / "out").rglob("Trainer/model/*"))
    assert not (tmp_path / "out" / "serving").exists()
    assert len(reads) == 1, "The plan reads the labels and hands them on, to ExampleGen too."


def write_images(folder, count=24):
    """Three classes of bars, colour, of several sizes."""
    for place, name in enumerate(("left bar", "middle", "right")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            generator = np.random.default_rng([place, index])
            size = 16 + index % 3
            image = generator.integers(0, 60, (size, size, 3), dtype="uint8")
            image[:, 5 * place : 5 * place + 4] += 180
            Image.fromarray(image).save(folder / name / f"{index:03d}.png")


def capsad(*arguments):
    return CliRunner().invoke(cli.main, arguments)


def test_a_folder_of_images_changed_data_and_undecodable_ones(tmp_path):
    data = tmp_path / "di [x]"  # whose name a glob would take for a pattern
    write_images(data)
    command = (
        "run",
        "--images",
        "di [x]",
        "--anomaly",
        "right",
        "--json",
        "--min-auroc",
        "0",
        *SMALL,
    )
    first = capsad(*command)
    assert first.exit_code == 0, first.output
    result = json.loads(first.output.splitlines()[-1])
    assert result["auroc"]["re"] > 0.5
    assert os.path.exists(result["pushed"])

    (data / "middle" / "bad.png").write_bytes(b"no image")
    broken = capsad(*command)
    assert broken.exit_code == 2
    assert re.search(r"1 images cannot be read.*middle/bad.png", broken.output)

    # What is damaged behind its header is found when it is decoded.
    whole = (data / "middle" / "003.png").read_bytes()
    (data / "middle" / "003.png").write_bytes(whole[: len(whole) // 2])
    (data / "middle" / ".DS_Store").touch()
    damaged = capsad(*command, "--max-unreadable", "1")
    assert damaged.exit_code == 2
    assert re.search(r"2 images cannot be read, and 1 are allowed: .*003.png", damaged.output)

    tolerant = capsad(*command, "--max-unreadable", "2")
    assert tolerant.exit_code == 0, tolerant.output
    # The data changed, so nothing comes from the cache.
    told = json.loads(tolerant.output.splitlines()[-1])
    assert not told["components"]["HoldOutExampleGen"]["cached"]
    for text in ("1 file ignored, because hidden: middle/.DS_Store", "middle/bad.png", "003.png"):
        assert any(text in note for note in told["data"]), text
        assert text in Path(told["report"]).read_text()
    # The console tells what --json has in its fields.
    again = capsad(*(word for word in command if word != "--json"), "--max-unreadable", "2")
    assert re.search(r"Trainer .*\(cached\)", again.output)
    for text in ("Read ", "1 file ignored, because hidden: middle/.DS_Store", "middle/bad.png"):
        assert text in again.output

    (data / "middle" / "004.png").rename(data / "left bar" / "x.png")
    moved = capsad(*command, "--max-unreadable", "2")
    assert moved.exit_code == 0, moved.output
    took = json.loads(moved.output.splitlines()[-1])["components"]
    assert not took["HoldOutExampleGen"]["cached"]


def test_photographs_of_good_parts_with_masks_of_the_defects(tmp_path):
    """MVTec AD's folders: nothing but the folder is given."""
    generator = np.random.default_rng(0)
    for name, count in (("train/good", 60), ("test/good", 14), ("test/hole", 14)):
        (tmp_path / "parts" / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(90, 120, (72, 108, 3), dtype="uint8")
            pixels[::4] += 60
            if name == "test/hole":
                pixels[20:52, 60:92] = 0
                mask = np.zeros((72, 108), "uint8")
                mask[20:52, 60:92] = 255
                folder = tmp_path / "parts" / "ground_truth" / "hole"
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(folder / f"{index}_mask.png")
            Image.fromarray(pixels).save(tmp_path / "parts" / name / f"{index}.png")
    command = (
        *("run", "--images", "parts", "--weights", lively_weights(), "--image-size", "64x96"),
        *("--output", "out"),
    )
    first = capsad(*command)
    assert first.exit_code == 0, first.output
    assert "Anomalies are the classes that only test has: hole." in first.output
    assert "detector patch_knn" in first.output
    result = valid_json(json.loads(capsad("report", "out", "--json").output))
    assert result["auroc"]["anomaly_score"] > 0.9
    assert result["pixels"]["images"] == 14
    assert result["pixels"]["auroc"] > 0.9 and result["pixels"]["pro"] > 0.5
    assert "per-region overlap" in Path(result["report"]).read_text()
    assert "Features of" in first.output

    # Another detector takes the same features.
    other = capsad(
        *(*command, "--detector", "capsnet", "--set", "backbone=mobilenet", "--epochs", "1"),
        *("--min-auroc", "0"),
    )
    assert other.exit_code == 0, other.output
    assert re.search(r"HoldOutExampleGen.*cached", other.output)

    scored = capsad("score", "out", "parts/test/hole", "--heatmaps", "maps", "--alpha", "0.3")
    assert scored.exit_code == 0, scored.output
    assert "train/good/" in scored.output
    shown = np.asarray(Image.open(next((tmp_path / "maps").glob("*.png"))), int)
    assert shown.shape == (72, 108, 3)
    redness = shown[..., 0] - shown[..., 2]
    assert redness[24:48, 64:88].mean() > 20 + redness[:, :40].mean()


def test_too_small_images(tmp_path):
    result = capsad("run", "digits", "--image-size", "8", "--output", "out")
    assert result.exit_code == 2
    assert "Images of 8x8 pixels are too small" in result.output


def test_divergence_stops_the_run_and_says_so(tmp_path):
    result = capsad("run", "digits", "--set", "learning_rate=1e30", "--output", "out")
    assert result.exit_code == 2
    assert "Training diverged" in result.output
    assert not (tmp_path / "out" / "serving").exists()


def test_a_full_disk(monkeypatch, tmp_path):
    import errno

    from ml_metadata.errors import InternalError
    from tfx.orchestration.portable import execution_publish_utils

    from components.serving import export as serving

    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_database(*arguments, **settings):  # TFX fails again when it records the failure
        raise InternalError("Error when executing query: database or disk is full")

    run_digits = ("run", "digits", "--epochs", "1", "--min-auroc", "0", "--output", "out")
    with monkeypatch.context() as patched:
        patched.setattr(serving, "export", full)
        patched.setattr(execution_publish_utils, "publish_failed_execution", full_database)
        result = capsad(*run_digits)
    assert result.exit_code == 2
    assert "The disk is full while writing to" in result.output
    result = capsad(*run_digits)
    assert result.exit_code == 0
    assert "Epoch 1 of 1" not in result.output  # it goes on after the training
