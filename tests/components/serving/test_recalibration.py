import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from components.data.folder import Table, find_images
from components.serving import clients
from components.serving.export import KERAS_FILE, WARMUP_FILE
from components.serving.recalibration import recalibrate
from components.serving.runner import SavedModelClient
from models.errors import UserError
from pipeline import cli


@pytest.fixture
def serving(pushed, tmp_path):
    """A copy of the pushed model, and a folder of 60 normal images that are darker than its own."""
    shutil.copytree(pushed.serving, tmp_path / "run" / "serving")
    return tmp_path / "run" / "serving"


@pytest.fixture
def darker(toys, to_png, tmp_path):
    folder = tmp_path / "darker"
    folder.mkdir()
    images = (toys(60, 3, seed=5)[0] * 0.7).astype("uint8")
    for number, image in enumerate(images):
        (folder / f"{number:02d}.png").write_bytes(to_png(image))
    return folder


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_only_the_calibration_is_new(serving, darker, toys, to_png):
    (old,) = serving.iterdir()
    before = files(old)
    made = recalibrate(str(serving.parent), find_images([str(darker)], Table()), Table())
    assert sorted(serving.iterdir()) == sorted([old, serving / os.path.basename(made.folder)])
    assert int(os.path.basename(made.folder)) > int(old.name)
    assert files(old) == before
    assert made.images == 60
    assert made.unreadable == []

    pngs = [to_png(image) for image in toys(40, 4, seed=6)[0]]
    former, new = (SavedModelClient(str(folder)) for folder in (old, made.folder))
    by_old, by_new = former.score(pngs), new.score(pngs)
    for name in by_old.keys() - {"anomaly_score", "flagged", "least_alpha"}:
        np.testing.assert_array_equal(by_old[name], by_new[name])
    usual = [path.read_bytes() for path in sorted(darker.iterdir())]
    scores = former.score(usual)
    ranks = [(1 + (scores["conformity"] <= value).sum()) / 61 for value in by_new["conformity"]]
    np.testing.assert_allclose(by_new["anomaly_score"], 1 - np.array(ranks), atol=1e-6)
    assert made.flagged_before == scores["flagged"].mean()
    # On average at most 5 % of the images that it was calibrated on exceed 1 - 0.05.
    assert new.score(usual)["flagged"].mean() <= 0.05 < made.flagged_before
    assert (
        (before[Path(WARMUP_FILE)])
        == files(serving / os.path.basename(made.folder))[Path(WARMUP_FILE)]
    )


def test_a_new_version_can_be_calibrated_again(serving, darker):
    first = recalibrate(str(serving), find_images([str(darker)], Table()), Table())
    some = sorted(map(str, darker.iterdir()))[:25]
    second = recalibrate(str(serving), some, Table())
    assert int(os.path.basename(second.folder)) > int(os.path.basename(first.folder))
    told = clients.local(str(serving)).score([(darker / "00.png").read_bytes()])["least_alpha"]
    assert told == pytest.approx(1 / 26)


def test_the_command_says_what_was_done_and_what_was_left_out(serving, darker):
    (darker / "broken.png").write_bytes(b"no image")
    (darker / "notes.txt").write_text("not an image")
    outcome = CliRunner().invoke(cli.main, ("recalibrate", str(serving), str(darker)))
    assert outcome.exit_code == 0, outcome.output
    assert "calibrated on 60 images, of which the former version flagged" in outcome.output
    assert "alpha must be above 0.016" in outcome.output
    assert "broken.png: " in outcome.output
    assert "notes.txt" in outcome.output


def test_what_cannot_be_recalibrated_is_named(serving, darker, tmp_path):
    (old,) = serving.iterdir()
    with pytest.raises(UserError, match="no image to calibrate on"):
        recalibrate(str(serving), [], Table())
    shutil.copytree(old, tmp_path / "mine")
    with pytest.raises(UserError, match="not named by the number of a version"):
        recalibrate(str(tmp_path / "mine"), [str(darker / "00.png")], Table())
    sums = old / "assets.extra" / "SHA256SUMS"
    (old / KERAS_FILE).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"model\.keras is changed"):
        recalibrate(str(serving), [str(darker / "00.png")], Table())
    (old / KERAS_FILE).unlink()
    lines = sums.read_text().splitlines()
    sums.write_text("".join(f"{line}\n" for line in lines if not line.endswith(KERAS_FILE)))
    with pytest.raises(UserError, match=r"has no assets.extra/model\.keras: it was pushed by an"):
        recalibrate(str(serving), [str(darker / "00.png")], Table())
    assert list(serving.iterdir()) == [old]
    assert json.loads((old / "assets.extra" / "export.json").read_text())["alpha"] == 0.05
