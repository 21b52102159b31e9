"""What a plan chooses by the data, and what it warns about."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from components.data.protocol import CALIBRATION, TRAIN
from models.errors import UserError
from pipeline import configs
from pipeline.plan import _group_warnings, plan


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(size=(8, 8), **counts):
        for place, (name, count) in enumerate(counts.items()):
            path = tmp_path / "data" / name
            path.mkdir(parents=True)
            for index in range(count):
                generator = np.random.default_rng([place, index])
                pixels = generator.integers(0, 256, size, dtype="uint8")
                Image.fromarray(pixels).save(path / f"{index:03d}.png")
        return str(tmp_path / "data")

    return write


@pytest.mark.parametrize(
    ("size", "classes", "detector", "image_size"),
    [
        ((8, 8), {"a": 40, "b": 40, "odd": 10}, "capsnet", (32, 32)),
        ((70, 70), {"a": 40, "b": 40, "odd": 10}, "capsnet", (224, 224)),
        ((75, 100), {"a": 60, "odd": 10}, "patch_knn", (192, 256)),
        ((65, 650), {"a": 60, "odd": 10}, "patch_knn", (128, 448)),
        ((8, 8), {"a": 60, "odd": 10}, "vae", (32, 32)),
    ],
)
def test_detector_and_size_follow_from_the_data(folder, size, classes, detector, image_size):
    planned = plan(configs.configure(images=folder(size, **classes), anomaly="odd"))
    assert (planned.detector.name, planned.image_size) == (detector, image_size)
    assert planned.config.training.detector == detector
    normal = "one normal class" if len(classes) == 2 else "2 normal classes"
    backbone = ", backbone mobilenet" if detector == "capsnet" and min(size) > 64 else ""
    assert planned.choice == (
        f"Chosen for {normal} and images of about {size[0]}x{size[1]} pixels: detector "
        f"{detector}{backbone}, images resized to {image_size[0]}x{image_size[1]}."
    )


def test_capsnet_on_a_backbone_has_settings_of_its_own_which_can_be_overridden(folder):
    images = folder((70, 70), a=40, b=40, odd=10)
    planned = plan(configs.configure(images=images, anomaly="odd"))
    assert planned.detector.backbone == "mobilenet"
    assert (planned.detector.batch_size, planned.detector.primary_types) == (32, 16)
    given = {"settings": {"backbone": "resnet50", "primary_types": 4}, "batch_size": 7}
    planned = plan(configs.configure(images=images, anomaly="odd", **given))
    assert planned.detector.backbone == "resnet50"
    assert (planned.detector.batch_size, planned.detector.primary_types) == (7, 4)
    small = plan(configs.configure(images=images, anomaly="odd", image_size="32"))
    assert (small.detector.backbone, small.detector.standardise) == (None, True)
    with pytest.raises(UserError, match="weights has no effect without a backbone") as raised:
        plan(configs.configure(images=images, anomaly="odd", image_size="32", weights="some.h5"))
    assert raised.value.settings == ("weights", "backbone")


def test_what_the_chosen_detector_has_no_use_for_is_refused(folder):
    images = folder((70, 70), a=60, odd=10)
    with pytest.raises(UserError, match="patch_knn has no setting 'epochs'"):
        plan(configs.configure(images=images, anomaly="odd", epochs=3))


def test_an_array_of_photographs_is_told_by_its_shape(tmp_path):
    labels = np.repeat([0, 1], 60)
    images = np.random.default_rng(0).integers(0, 256, (120, 80, 80), dtype="uint8")
    np.savez(tmp_path / "some.npz", x_train=images, y_train=labels)
    planned = plan(configs.configure(images=str(tmp_path / "some.npz"), anomaly="1"))
    assert (planned.detector.name, planned.image_size) == ("patch_knn", (224, 224))


def test_sizes_that_add_or_lose_much_are_told(folder):
    images = folder((80, 80), a=60, odd=10)

    def about(size):
        warnings = plan(configs.configure(images=images, anomaly="odd", image_size=size)).warnings
        return " ".join(text for text in warnings if "pixels are" in text)

    assert "80x80 pixels are blown up to 224x224" in about(None)
    assert about("64") == ""
    assert about("32") == ""
    given = {"images": images, "anomaly": "odd", "detector": "vae", "image_size": "16"}
    texts = " ".join(plan(configs.configure(**given)).warnings)
    assert "reduced to 16x16: what is smaller than about 5 pixels may be lost" in texts


def test_what_is_given_is_not_chosen(folder):
    given = {"anomaly": "odd", "detector": "vae", "image_size": "16"}
    planned = plan(configs.configure(images=folder((70, 70), a=60, odd=10), **given))
    assert (planned.detector.name, planned.image_size, planned.choice) == ("vae", (16, 16), "")
    with pytest.raises(UserError, match="only the normal class 'a'.*With one normal class take"):
        again = {"images": planned.source.folder, "anomaly": "odd"}
        plan(configs.configure(**again, detector="cnn_softmax"))


def test_settings_of_a_detector_hold_for_the_one_that_is_chosen(folder):
    data = folder((8, 8), a=40, b=40, odd=10)
    planned = plan(configs.configure(images=data, anomaly="odd", settings={"filters": 16}))
    assert planned.detector.filters == 16
    assert planned.detector.standardise is True
    assert planned.detector.epochs == 20


def test_images_that_are_trained_and_tested_on_are_told(folder, tmp_path):
    data = tmp_path / "data"
    folder((8, 8), train=0, test=0)
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
    planned = plan(configs.configure(images=folder((8, 8), a=300, b=8, odd=4), anomaly="odd"))
    texts = " ".join(planned.warnings)
    train = planned.counts["train"]
    assert f"class 'b' has only {train['b']} images to train on, and 'a' has {train['a']}" in texts
    assert "There are only 8 images to test on" in texts


def test_too_few_images_to_calibrate_are_told(folder):
    planned = plan(configs.configure(images=folder((8, 8), a=20, b=20, odd=10), anomaly="odd"))
    count = sum(planned.counts["calibration"].values())
    assert count < 19
    assert any(f"no alpha up to {1 / (count + 1):.2g} can ever flag" in w for w in planned.warnings)


def test_classes_that_only_test_has_are_the_anomalies(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counts = {"train/a": 40, "train/b": 40, "test/a": 20, "test/b": 20, "test/x, y": 9, "test/z": 9}
    for place, (name, count) in enumerate(counts.items()):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng([place, index]).integers(0, 256, (9, 9), dtype="uint8")
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.png")
    images = str(tmp_path / "data")
    planned = plan(configs.configure(images=images))
    assert planned.classes.anomaly_names == ("x, y", "z")
    assert planned.choice.startswith(
        "Anomalies are the classes that only test has: x, y, z. Chosen"
    )
    with pytest.raises(UserError, match="No anomaly class is given.*FOLDER/test/scratched/3.png"):
        plan(configs.configure(images=f"{images}/train"))


def test_a_class_of_two_images_is_told(folder):
    planned = plan(configs.configure(images=folder((8, 8), a=30, b=6, odd=10), anomaly="odd"))
    rarest = planned.counts["train"]["b"]
    assert rarest < 10
    assert any(
        f"'b' has only {rarest} images to train on, so hardly" in w for w in planned.warnings
    )


def test_few_groups_to_calibrate_on_are_told():
    def told(calibrated):
        groups = np.r_[np.arange(6), calibrated]
        splits = np.r_[np.full(6, TRAIN), np.full(len(calibrated), CALIBRATION)]
        part = SimpleNamespace(groups=groups)
        held_out = SimpleNamespace(
            index=SimpleNamespace(parts={"train": part}), splits={"train": splits}
        )
        return "".join(_group_warnings(held_out))

    assert "are of only 3 groups" in told(np.repeat([7, 8, 9], 50))
    assert told(np.arange(10, 150)) == ""
    assert told(np.full(50, -1)) == ""  # images of no group
