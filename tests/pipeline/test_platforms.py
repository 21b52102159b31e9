"""One pipeline for both runners: what differs, and nothing else; needs no kfp."""

import json

import pytest

from pipeline import configs, platforms
from pipeline.pipeline import create_pipeline
from pipeline.plan import plan


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    output = str(tmp_path_factory.mktemp("out"))
    planned = plan(configs.override(configs.get("digits"), output=output))
    there = platforms.kubeflow(planned.config.name, "gs://bucket/digits")
    on_kubeflow = create_pipeline(planned, there)
    return create_pipeline(planned, platforms.local(planned)), on_kubeflow


def nodes(pipeline):
    return {node.id: node for node in pipeline.components}


def test_only_the_baseline_is_not_on_kubeflow(pipelines):
    local, on_kubeflow = map(nodes, pipelines)
    assert set(local) - set(on_kubeflow) == {"Baseline"}
    assert set(on_kubeflow) <= set(local)
    assert "baseline_model" in local["Evaluator"].inputs
    assert "baseline_model" not in on_kubeflow["Evaluator"].inputs


def test_only_places_differ(pipelines):
    local, on_kubeflow = map(nodes, pipelines)
    different = {
        (name, key)
        for name, node in on_kubeflow.items()
        for key, value in node.exec_properties.items()
        if value != local[name].exec_properties[key]
    }
    assert different == {
        ("HoldOutExampleGen", "input_base"),
        ("HoldOutExampleGen", "input_config"),
        ("HoldOutExampleGen", "custom_config"),
        ("Evaluator", "gate"),
        ("Pusher", "push_destination"),
    }
    gates = [json.loads(of["Evaluator"].exec_properties["gate"]) for of in (local, on_kubeflow)]
    assert [gate.pop("compares") for gate in gates] == [True, False]
    assert gates[0] == gates[1]
    configs_ = [
        json.loads(of["HoldOutExampleGen"].exec_properties["custom_config"])
        for of in (local, on_kubeflow)
    ]
    of_local, of_kubeflow = (found["custom_config"]["value"] for found in configs_)
    changed = {key for key, value in of_kubeflow.items() if value != of_local[key]}
    assert changed == {"data_dir", "held_out"}
    assert of_kubeflow["data_dir"] == "gs://bucket/digits"


@pytest.mark.parametrize("given", [{}, {"serving_device": "gpu"}])
def test_the_trainer_is_told_the_serving_device_and_the_anomaly(given, tmp_path):
    planned = plan(configs.override(configs.get("digits"), output=str(tmp_path), **given))
    trainer = nodes(create_pipeline(planned, platforms.local(planned)))["Trainer"]
    config = json.loads(trainer.exec_properties["custom_config"])
    assert config["serving_device"] == given.get("serving_device", "cpu")
    assert config["anomaly"] == list(planned.classes.anomaly_names) != []


def test_the_batch_scorer_has_the_limit_of_pixels_of_the_run(tmp_path):
    given = {"output": str(tmp_path / "out"), "score_images": str(tmp_path), "max_pixels": 99}
    planned = plan(configs.override(configs.get("digits"), **given))
    scorer = nodes(create_pipeline(planned, platforms.local(planned)))["BatchScorer"]
    assert scorer.exec_properties["max_pixels"] == 99


def test_where_artifacts_and_metadata_go(pipelines):
    local, on_kubeflow = pipelines
    assert local.pipeline_info.pipeline_root.endswith("/pipeline")
    assert local.metadata_connection_config.sqlite.filename_uri.endswith("/metadata.sqlite")
    assert on_kubeflow.pipeline_info.pipeline_root == ""
    assert on_kubeflow.pipeline_info.pipeline_name == "capsad-digits"
