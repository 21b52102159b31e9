"""What a plan chooses by the data, and what it warns about."""

import numpy as np
import pytest
from PIL import Image

from models.errors import UserError
from pipeline import configs
from pipeline.plan import plan


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(size=8, **counts):
        for place, (name, count) in enumerate(counts.items()):
            path = tmp_path / "data" / name
            path.mkdir(parents=True)
            for index in range(count):
                generator = np.random.default_rng([place, index])
                pixels = generator.integers(0, 256, (size, size), dtype="uint8")
                Image.fromarray(pixels).save(path / f"{index:03d}.png")
        return str(tmp_path / "data")

    return write


@pytest.mark.parametrize(
    ("size", "classes", "detector", "image_size"),
    [
        (8, {"a": 40, "b": 40, "odd": 10}, "capsnet", (32, 32)),
        (70, {"a": 40, "b": 40, "odd": 10}, "capsnet", (32, 32)),
        (70, {"a": 60, "odd": 10}, "patch_knn", (224, 224)),
        (8, {"a": 60, "odd": 10}, "vae", (32, 32)),
    ],
)
def test_detector_and_size_follow_from_the_data(folder, size, classes, detector, image_size):
    planned = plan(configs.configure(images=folder(size, **classes), anomaly="odd"))
    assert (planned.detector.name, planned.image_size) == (detector, image_size)
    assert planned.config.training.detector == detector
    normal = "one normal class" if len(classes) == 2 else "2 normal classes"
    assert planned.choice == (
        f"Chosen for {normal} and images of about {size} pixels: detector {detector}, images "
        f"resized to {image_size[0]}x{image_size[1]}."
    )


def test_what_is_given_is_not_chosen(folder):
    given = {"anomaly": "odd", "detector": "vae", "image_size": "16"}
    planned = plan(configs.configure(images=folder(70, a=60, odd=10), **given))
    assert (planned.detector.name, planned.image_size, planned.choice) == ("vae", (16, 16), "")
    with pytest.raises(UserError, match="only the normal class 'a'.*With one normal class take"):
        again = {"images": planned.source.folder, "anomaly": "odd"}
        plan(configs.configure(**again, detector="cnn_softmax"))


def test_settings_of_a_detector_hold_for_the_one_that_is_chosen(folder):
    data = folder(8, a=40, b=40, odd=10)
    planned = plan(configs.configure(images=data, anomaly="odd", settings={"filters": 16}))
    assert planned.detector.filters == 16
    assert planned.detector.standardise is True
    assert planned.detector.epochs == 20


def test_images_that_are_trained_and_tested_on_are_told(folder, tmp_path):
    data = tmp_path / "data"
    folder(8, train=0, test=0)
    for part, name, seed, count in (
        *(("train", "a", 1, 40), ("train", "b", 2, 40)),
        *(("test", "a", 3, 20), ("test", "odd", 4, 30)),
    ):
        (data / part / name).mkdir()
        for index in range(count):
            pixels = np.random.default_rng([seed, index]).integers(0, 256, (8, 8), dtype="uint8")
            Image.fromarray(pixels).save(data / part / name / f"{index:03d}.png")
    for index in range(3):
        copy = data / "test" / "a" / f"copy{index}.png"
        copy.write_bytes((data / "train" / "a" / f"{index:03d}.png").read_bytes())
    planned = plan(configs.configure(images=str(data), anomaly="odd"))
    (warning,) = (text for text in planned.warnings if "identical" in text)
    assert warning.startswith("3 images to test on are identical to images to train on")
    assert "test/a/copy0.png, the same as train/a/000.png" in warning
    assert planned.counts["test"] == {"a": 20, "odd": 20}


def test_rare_classes_and_few_images_are_told(folder):
    planned = plan(configs.configure(images=folder(8, a=300, b=8, odd=4), anomaly="odd"))
    texts = " ".join(planned.warnings)
    train = planned.counts["train"]
    assert f"class 'b' has only {train['b']} images to train on, and 'a' has {train['a']}" in texts
    assert "There are only 8 images to test on" in texts


def test_too_few_images_to_calibrate_are_told(folder):
    planned = plan(configs.configure(images=folder(8, a=20, b=20, odd=10), anomaly="odd"))
    count = sum(planned.counts["calibration"].values())
    assert count < 19
    assert any(f"no alpha up to {1 / (count + 1):.2g} can ever flag" in w for w in planned.warnings)
