from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from components.data.folder import Table
from components.data.index import Index, Part
from models import detectors
from models.errors import UserError
from pipeline import configs
from pipeline.plan import plan


def test_the_named_pipelines():
    assert configs.names() == tuple(
        f"capsad_{name}" for name in ("digits", "mnist", "fashion_mnist", "smallnorb", "images")
    )


@pytest.mark.parametrize("name", configs.names())
def test_settings_suit_the_detector_and_the_images(name):
    config = configs.get(name)
    training, size = config.training, config.data.image_size
    if name == "capsad_images":  # Both are chosen by the data.
        assert (training.detector, size) == (None, None)
        training, size = replace(training, detector="capsnet"), (32, 32)
    detector = detectors.get(training.detector, **training.all_settings)
    detector.check_image_size(size)


def test_unknown_names_suggest():
    with pytest.raises(UserError, match="Unknown data set 'fashon_mnist'.*mean fashion_mnist"):
        configs.get("fashon_mnist")


def test_overrides_leave_the_rest():
    config = configs.override(
        configs.get("digits"), anomaly="0, 3,5", epochs=2, seed=4, min_auroc=0.9, image_size=20
    )
    assert config.data.anomaly == ("0, 3,5",)
    assert config.data.image_size == (20, 20)
    assert config.training.all_settings["epochs"] == 2
    assert config.training.settings["filters"] == 64
    assert (config.seed, config.gate.min_auroc) == (4, 0.9)
    assert configs.get("digits").training.epochs != 2


def test_settings_that_are_knobs_are_these_knobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"weights": "own.h5", "epochs": 3, "filters": 8}
    training = configs.override(configs.get("mnist"), settings=settings).training
    assert (training.weights, training.epochs) == ("own.h5", 3)
    assert "weights" not in training.settings
    assert training.all_settings["weights"] == str(tmp_path / "own.h5")


def test_the_strategy_survives_another_detector():
    config = configs.override(configs.get("digits"), strategy="one_device")
    config = configs.override(config, detector="vae")
    assert (config.training.detector, config.training.strategy) == ("vae", "one_device")
    assert "filters" not in config.training.settings
    assert configs.get("digits").training.strategy == "auto"


def test_an_empty_anomaly_stays_empty():
    config = configs.override(configs.get("digits"), anomaly="")
    with pytest.raises(UserError, match="No anomaly class is given"):
        plan(config)


def test_zero_seed_and_threshold_are_values():
    config = configs.override(configs.get("digits"), seed=0, min_auroc=0.0)
    assert (config.seed, config.gate.min_auroc) == (0, 0.0)


def test_beam_args_and_images_to_score(monkeypatch):
    monkeypatch.setenv("CAPSAD_BEAM_ARGS", "--runner=PortableRunner  --job_endpoint=localhost:8099")
    monkeypatch.setenv("CAPSAD_SCORE_IMAGES", "new images")
    config = configs.configure("mnist")
    assert config.beam_args == ("--runner=PortableRunner", "--job_endpoint=localhost:8099")
    assert config.score_images == "new images"
    # What the command line gives when its options are not given leaves them.
    assert configs.override(config, beam_args=(), score_images=None) == config
    assert configs.override(config, beam_args=["--x=1"]).beam_args == ("--x=1",)


def test_environment_overrides(monkeypatch):
    monkeypatch.setenv("CAPSAD_ANOMALY", "1,2")
    monkeypatch.setenv("CAPSAD_EPOCHS", "3")
    config = configs.configure("mnist")
    assert config.data.anomaly == ("1,2",)
    assert config.training.epochs == 3
    monkeypatch.setenv("CAPSAD_EPOCHS", "many")
    with pytest.raises(UserError, match="CAPSAD_EPOCHS: .*'many' is not a valid integer"):
        configs.configure("mnist")


def test_what_is_given_goes_before_variables_of_other_data(monkeypatch):
    monkeypatch.setenv("CAPSAD_PIPELINE", "mnist")
    assert configs.configure(images="own").name == "capsad_images"
    assert configs.configure(data_dir="files").name == "capsad_mnist"
    monkeypatch.setenv("CAPSAD_IMAGES", "variable")
    assert configs.configure("digits").data.images is None
    assert configs.configure(data_dir="files").data.images is None
    assert configs.configure("images").data.images == "variable"
    assert configs.configure(images="own").data.images == "own"
    with pytest.raises(UserError, match="a data set .'CAPSAD_PIPELINE=mnist'. or a folder"):
        configs.configure()
    monkeypatch.delenv("CAPSAD_PIPELINE")
    assert configs.configure().data.images == "variable"


def test_a_setting_that_is_given_goes_before_the_variable_of_its_knob(monkeypatch):
    monkeypatch.setenv("CAPSAD_EPOCHS", "7")
    monkeypatch.setenv("CAPSAD_SETTINGS", "batch_size=8")
    training = configs.configure("mnist", settings={"epochs": 3}, batch_size=9).training
    assert (training.epochs, training.batch_size) == (3, 9)


def test_every_anomaly_has_an_output_folder_of_its_own():
    base = configs.get("fashion_mnist")
    names = ("a", "b", "a/b", "a_b", "c", "d")
    digests = [bytes([place // 256, place % 256]) * 16 for place in range(600)]

    def index():
        return Index(names, 1, 255, {"train": Part.of(np.arange(600) % 6, digests)})

    source = SimpleNamespace(
        class_names=names,
        index=index,
        table=Table(),
        infos=[],
        warnings=[],
    )
    outputs = {
        plan(configs.override(base, anomaly=names), source).output
        for names in ("a", "b", "a,b", "a/b", "a_b")
    }
    assert len(outputs) == 5
    assert plan(configs.override(base, anomaly="a", output="x"), source).output.endswith("/x")


def test_npz_files_are_their_own_source():
    config = configs.configure(images="some/file.npz")
    assert config.data.source_name == "npz"
    assert config.data.location.endswith("/some/file.npz")


def test_containers_need_absolute_places():
    for data_dir in (None, "/mnt/data", "gs://bucket/data", "s3://bucket/data"):
        given = configs.configure_kubeflow(image="i", data_dir=data_dir)
        assert given.data_dir == data_dir
    with pytest.raises(UserError, match="'data' is not an absolute path, nor does it begin by gs:"):
        configs.configure_kubeflow(image="i", data_dir="data")


@pytest.mark.parametrize(
    "image",
    [
        "capsad",
        "capsad:1.2_a",
        "host:5000/a/b-c__d:v1",
        "HOST.example/capsad@sha256:" + "0a" * 32,
    ],
)
def test_names_of_images(image):
    assert configs.configure_kubeflow(image=image).image == image


@pytest.mark.parametrize(
    "image",
    ["Capsad", "a b", "capsad:", "http://host/capsad", "a//b", "capsad@sha256:0a", "-x", "a:b:c"],
)
def test_what_cannot_be_an_image(image):
    with pytest.raises(UserError, match=f"'{image}' is not the name of an image such as"):
        configs.configure_kubeflow(image=image)


def test_what_containers_get(monkeypatch):
    monkeypatch.setenv("CAPSAD_ENV", "A=1 'B=x = y' C=")
    given = configs.configure_kubeflow(
        image="i",
        cpus=["2", "Trainer=4.5"],
        volumes=["/data=claim", "/a b=c.1"],
        secrets=["KEY=s3-login/secret_key"],
        tolerations=["gpu", "a/b=c:NoExecute"],
    ).containers
    assert given.cpus == {"": 2, "Trainer": 4.5}
    assert given.volumes == {"/data": "claim", "/a b": "c.1"}
    assert given.secrets == {"KEY": "s3-login/secret_key"}
    assert given.env == {"A": "1", "B": "x = y", "C": ""}
    assert given.tolerations == ("gpu", "a/b=c:NoExecute")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cpus", "0", "0"),
        ("cpus", "=1", "'=1' is not of the form NUMBER or COMPONENT=NUMBER"),
        ("memory_gb", "Trainer=much", "much"),
        ("volumes", "data=claim", "'data=claim' is not of the form /FOLDER=CLAIM"),
        ("volumes", "/data=Claim", "not of the form /FOLDER=CLAIM"),
        ("secrets", "KEY=secret", "not of the form VARIABLE=SECRET/KEY"),
        ("env", "1A=b", "not of the form VARIABLE=VALUE"),
        ("tolerations", "key:Sometimes", "'key:Sometimes' is not of the form KEY=VALUE:EFFECT"),
        ("retries", "-1", "-1"),
    ],
)
def test_what_containers_cannot_get(name, value, message):
    with pytest.raises(UserError, match=message) as caught:
        configs.configure_kubeflow(image="i", **{name: value})
    assert caught.value.settings == (name,)
