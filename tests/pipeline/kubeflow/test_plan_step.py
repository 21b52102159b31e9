import contextlib
import json
import sys

import numpy as np
import pytest
from PIL import Image

from components.data import sources
from pipeline import configs, platforms
from pipeline.kubeflow import plan_step
from pipeline.pipeline import create_pipeline
from pipeline.plan import plan


@pytest.fixture
def photos(tmp_path):
    for name in ("good", "worn", "bent"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.random.default_rng(number).integers(0, 256, (9, 9), dtype="uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{name}{number}.png")
    return tmp_path / "photos"


def properties(config):
    made = create_pipeline(plan(config), platforms.kubeflow("x", "/data"))
    return {
        (component.id, name): value
        for component in made.components
        for name, value in component.exec_properties.items()
    }


def test_all_that_depends_on_data_and_parameters_is_planned(photos):
    digits = properties(configs.get("digits"))
    others = properties(
        configs.configure(
            images=str(photos),
            anomaly="bent",
            detector="cnn_softmax",
            min_auroc=0.9,
            seed=3,
            alpha=0.1,
            serving_device="gpu",
            strategy="one_device",
            max_unreadable=2,
        )
    )
    different = {key for key in digits if digits[key] != others[key]}
    planned = {(name, key) for name, keys in plan_step.PLANNED.items() for key in keys}
    assert different == planned
    assert set(digits) == set(others)


def test_a_run_is_planned_as_a_local_one(photos):
    texts = {"anomaly": "bent", "data_dir": str(photos), "epochs": "2", "detector": "vae"}
    made = plan_step.outputs("images", texts)
    config = configs.configure(images=str(photos), anomaly="bent", epochs=2, detector="vae")
    expected = properties(config)
    for component, names in plan_step.PLANNED.items():
        for name in names:
            value = made.pop(plan_step.output_name(component, name))
            if component != "HoldOutExampleGen":
                assert value == expected[component, name]
                continue
            found = json.loads(value)["custom_config"]["value"]
            assert found.pop("data_dir") == str(photos)
            of_local = json.loads(expected[component, name])["custom_config"]["value"]
            assert found == {key: of_local[key] for key in found}
    assert not made


def run(monkeypatch, tmp_path, **texts):
    outputs = {
        name: {"outputFile": str(tmp_path / "out" / name)}
        for name in ("Evaluator_eval_config", "Report_run")
    }
    invocation = {
        "inputs": {"parameterValues": {"pipeline": "capsad_digits", **texts}},
        "outputs": {"parameters": outputs},
    }
    monkeypatch.setattr(sys, "argv", ["plan_step", json.dumps(invocation)])
    plan_step.main()


def test_main_writes_each_output_to_its_file(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        plan_step,
        "outputs",
        lambda pipeline, texts: (
            asked.append((pipeline, texts["epochs"]))
            or {
                plan_step.output_name(component, name): f"{component}'s {name}"
                for component, names in plan_step.PLANNED.items()
                for name in names
            }
        ),
    )
    run(monkeypatch, tmp_path, epochs="2")
    assert asked == [("capsad_digits", "2")]
    assert (tmp_path / "out" / "Evaluator_eval_config").read_text() == "Evaluator's eval_config"
    assert (tmp_path / "out" / "Report_run").read_text() == "Report's run"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"anomaly": "ten"}, "Error: Unknown anomaly class 'ten'"),
        ({"epochs": "0"}, "Error: The parameter epochs: "),
        ({"data_dir": "/not/there"}, "Error: .*/not/there.* See the parameters data_dir."),
    ],
)
def test_wrong_parameters_are_one_sentence(texts, message, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=message) as stopped:
        run(monkeypatch, tmp_path, **texts)
    assert "\n" not in str(stopped.value)
    assert not list(tmp_path.iterdir())


def test_data_in_a_bucket_is_planned_from_a_copy(photos, monkeypatch):
    places = {"s3://bucket/photos": str(photos)}
    monkeypatch.setattr(plan_step, "local_copy", lambda uri: contextlib.nullcontext(places[uri]))
    made = plan_step.outputs("images", {"anomaly": "bent", "data_dir": "s3://bucket/photos"})
    found = json.loads(made["HoldOutExampleGen_custom_config"])["custom_config"]["value"]
    assert found["data_dir"] == "s3://bucket/photos"
    assert found["fingerprint"] == sources.get("images", str(photos)).index().fingerprint
    assert str(photos) not in str(made)  # else copies at other places would be other runs
