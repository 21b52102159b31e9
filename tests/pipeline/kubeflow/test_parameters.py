import pytest

from models.errors import UserError
from pipeline import configs
from pipeline.kubeflow.parameters import PARAMETERS, configure, environment

VALUES = {
    "data_dir": "s3://bucket/some folder",
    "source_options": {"camera": "right", "other": 'a "b" c'},
    "anomaly": ("0", "a's"),
    "image_size": (28, 32),
    "limit_per_class": 7,
    "eval_fraction": 0.125,
    "calibration_fraction": 1e-3,
    "test_fraction": 0.3,
    "balanced_test": False,
    "split_seed": 0,
    "max_pixels": 1000,
    "max_unreadable": 2,
    "detector": "vae",
    "epochs": 3,
    "batch_size": 8,
    "settings": {"hidden_units": [5, 6], "patience": None, "a": "x=y z", "rate": 0.5},
    "weights": "/capsad/my weights.h5",
    "strategy": "one_device",
    "alpha": 0.01,
    "serving_device": "gpu",
    "min_auroc": 0.0,
    "max_auroc_drop": 1.0,
    "seed": 4,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_text_of_a_value_gives_it_again(name):
    knob, value = PARAMETERS[name], VALUES[name]
    if name == "anomaly":  # One text may hold several classes.
        assert knob.convert(knob.split(knob.text(value))) == ("0,a's",)
        assert knob.convert(knob.split(knob.text(("a, b",)))) == ("a, b",)
    else:
        assert knob.convert(knob.split(knob.text(value))) == value


def test_several_classes_with_a_comma_in_a_name_are_refused():
    with pytest.raises(UserError, match="in which 'a,b' would be several: give one") as caught:
        environment(anomaly=("a,b", "c"))
    assert caught.value.settings == ("anomaly",)


def test_empty_texts_leave_the_named_pipeline():
    assert configure("digits", dict.fromkeys(PARAMETERS, "")) == configs.get("digits")


def test_parameters_are_read_like_options():
    texts = {"detector": "vae", "anomaly": "3, 5", "epochs": "2", "settings": "latent_dim=8"}
    config = configure("capsad_digits", texts)
    assert config == configs.override(
        configs.get("digits"),
        detector="vae",
        anomaly="3, 5",
        epochs=2,
        settings={"latent_dim": 8},
    )


def test_variables_of_the_image_do_not_count(monkeypatch):
    monkeypatch.setenv("CAPSAD_EPOCHS", "7")
    assert configure("digits", {}) == configs.get("digits")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("epochs", "many", "The parameter epochs: .*'many' is not a valid integer"),
        ("min_auroc", "2", "The parameter min_auroc: .*2.0 is not in the range"),
        ("settings", "a='b", "The parameter settings: No closing quotation"),
        ("settings", "filters", "The parameter settings: .*not of the form NAME=VALUE"),
        ("settings", "colour=1", "colour"),
        ("data_dir", "data", "The parameter data_dir: .*'data' is not an absolute path"),
    ],
)
def test_wrong_texts(name, text, message):
    with pytest.raises(UserError, match=message):
        configure("digits", {name: text})
