import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline import cli


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(("bolt", "nut", "odd")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(30):
            pixels = np.random.default_rng([place, index]).integers(0, 256, (8, 9), dtype="uint8")
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index:02d}.png")
    return tmp_path / "data"


def inspect(*arguments):
    return CliRunner().invoke(cli.main, ["inspect", *map(str, arguments)])


def test_what_would_be_read_and_how_it_would_be_split(data):
    (data / "bolt" / ".DS_Store").touch()
    (data / "bolt" / "copy.png").write_bytes((data / "nut" / "00.png").read_bytes())
    result = inspect("data", "--anomaly", "odd")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert f"{data}: class folders, 91 grey images" in lines
    assert "1 file ignored, because hidden: bolt/.DS_Store" in lines
    assert "bolt 31" in lines
    assert "sizes 9x8 to 9x8 pixels, the median 9x8 (width x height)" in lines
    assert "formats 91 PNG" in lines
    assert "pixels 91 L" in lines
    assert (
        "1 images are identical to another; the first is nut/00.png, the same as bolt/copy.png"
        in (lines)
    )
    assert "A run with the anomaly odd:" in lines
    assert "detector capsnet, images resized to 32x32" in lines
    for split in ("train", "eval", "calibration", "test"):
        assert any(line.startswith(f"{split} ") for line in lines)
    assert any("no alpha up to" in line for line in lines)


def test_without_an_anomaly_it_says_how_to_go_on(data):
    result = inspect("data")
    assert result.exit_code == 0
    assert "Give a class by --anomaly" in result.output


def test_what_is_wrong_is_told_with_exit_code_1(data):
    (data / "bolt" / "x.png").write_bytes(b"no image")
    result = inspect("data", "--anomaly", "odd")
    assert result.exit_code == 1
    assert "A run would be refused: 1 images cannot be read" in result.output
    assert "bolt/x.png (no image of a known format, or damaged)" in result.output
    assert inspect("data", "--anomaly", "odd", "--max-unreadable", "1").exit_code == 0
    assert inspect("data", "--anomaly", "even").exit_code == 1
    assert inspect("nowhere").exit_code == 2


def test_without_an_anomaly_what_is_wrong_is_told_too(data):
    (data / "bolt" / "x.png").write_bytes(b"no image")
    assert inspect("data", "--max-unreadable", "1").exit_code == 0
    result = inspect("data")
    assert result.exit_code == 1
    assert "A run would be refused: 1 images cannot be read" in result.output


def test_a_class_that_only_test_has_is_the_anomaly(data):
    shutil.copytree(data / "bolt", data.parent / "parts" / "train" / "bolt")
    shutil.copytree(data, data.parent / "parts" / "test", ignore=lambda *_: ["nut"])
    for image in (data.parent / "parts" / "test" / "bolt").glob("*"):
        Image.open(image).rotate(180).save(image)
    result = inspect("parts")
    assert result.exit_code == 0, result.output
    assert "A run with the anomaly odd:" in result.output


def test_a_single_class_has_nothing_to_choose(data):
    for name in ("nut", "odd"):
        shutil.rmtree(data / name)
    result = inspect("data")
    assert result.exit_code == 1
    assert "A run would be refused: No anomaly class is given: the classes are bolt." in (
        result.output
    )
    assert "FOLDER/test/scratched/3.png" in result.output


def test_it_needs_no_tensorflow(data):
    code = (
        "import sys; sys.argv[0] = 'capsad'; from pipeline.cli import main; "
        "main(standalone_mode=False); "
        "assert not {'tensorflow', 'keras', 'tfx', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, "inspect", "data", "--anomaly", "odd"], check=True)
