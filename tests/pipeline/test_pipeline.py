"""The wiring of the pipeline, which is built and not run."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import tensorflow as tf
from click.testing import CliRunner
from google.protobuf import json_format
from tfx.components.infra_validator import executor
from tfx.components.util.model_utils import is_infra_validated
from tfx.proto import infra_validator_pb2
from tfx.types import standard_artifacts

from components.data.examples import ENCODED, make_example
from models.errors import UserError
from pipeline import cli, configs, local
from pipeline.plan import plan


def built(tmp_path, **gate):
    config = configs.override(configs.get("digits"), output=str(tmp_path))
    config = replace(config, gate=replace(config.gate, **gate))
    pipeline = local.compile_pipeline(plan(config))
    return {component.id: component for component in pipeline.components}


def test_infra_validation_stands_between_evaluator_and_pusher(tmp_path):
    components = built(tmp_path, infra_validation=True)
    validator, pusher = components["InfraValidator"], components["Pusher"]
    assert components["Evaluator"] in validator.upstream_nodes
    assert pusher.inputs["infra_blessing"] is validator.outputs["blessing"]
    assert pusher.inputs["model_blessing"] is components["Evaluator"].outputs["blessing"]
    assert validator.inputs["model"] is components["Trainer"].outputs["model"]
    assert validator.inputs["examples"] is components["HoldOutExampleGen"].outputs["examples"]
    serving = json_format.Parse(
        validator.exec_properties["serving_spec"], infra_validator_pb2.ServingSpec()
    )
    assert serving.WhichOneof("serving_platform") == "local_docker"
    assert serving.WhichOneof("serving_binary") == "tensorflow_serving"
    request = json_format.Parse(
        validator.exec_properties["request_spec"], infra_validator_pb2.RequestSpec()
    )
    assert request.tensorflow_serving.signature_names == ["serving_default"]
    assert request.split_name == "eval"


@pytest.mark.parametrize(
    ("served", "encoded", "blessed"),
    [("capsad", ENCODED, True), ("another name", ENCODED, False), ("capsad", "no image", False)],
)
def test_infra_validation_sends_what_the_model_answers(
    served, encoded, blessed, tmp_path, pushed, model_server, toys, monkeypatch
):
    """The stock executor with the pipeline's settings; the container alone is another one."""
    validator = built(tmp_path, infra_validation=True)["InfraValidator"]
    artifacts = {}
    for name, kind in (
        ("model", standard_artifacts.Model),
        ("examples", standard_artifacts.Examples),
        ("blessing", standard_artifacts.InfraBlessing),
    ):
        artifacts[name] = kind()
        artifacts[name].uri = str(tmp_path / name)
    os.makedirs(tmp_path / "blessing")
    shutil.copytree(pushed.version, tmp_path / "model" / "Format-Serving")
    write_examples(artifacts["examples"], toys(5, 3, seed=0)[0], encoded)

    runner = mock.Mock()
    runner.GetEndpoint.return_value = model_server.grpc.removeprefix("grpc://")
    monkeypatch.setattr(executor, "_create_model_server_runner", lambda **_: runner)
    settings = {name: validator.exec_properties[name] for name in ("serving_spec", "request_spec")}
    settings["serving_spec"] = settings["serving_spec"].replace("capsad", served)
    settings["validation_spec"] = '{"max_loading_time_seconds": 1, "num_tries": 1}'
    executor.Executor(executor.Executor.Context(tmp_dir=str(tmp_path), unique_id="1")).Do(
        {name: [artifacts[name]] for name in ("model", "examples")},
        {"blessing": [artifacts["blessing"]]},
        settings,
    )
    assert is_infra_validated(artifacts["blessing"]) == blessed


def write_examples(artifact, images, encoded):
    """Images as Examples whose feature `image/encoded` is called `encoded`."""
    artifact.split_names = '["eval"]'
    artifact.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    artifact.set_string_custom_property("file_format", "tfrecords_gzip")
    folder = Path(artifact.uri, "Split-eval")
    folder.mkdir(parents=True)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(folder / "data.gz"), options) as writer:
        for image in images:
            example = make_example(image, 0, "a", ["a"], "x")
            feature = example.features.feature.pop(ENCODED)
            example.features.feature[encoded].CopyFrom(feature)
            writer.write(example.SerializeToString())


@pytest.mark.parametrize(
    "given", [lambda f: {"weights": f}, lambda f: {"settings": {"weights": f}}]
)
def test_other_weights_in_a_file_train_anew(given, tmp_path, monkeypatch):
    monkeypatch.setattr("models.detectors.backbone.BackboneDetector.check_weights", lambda *_: None)
    file, trained = tmp_path / "weights.h5", set()
    for content in ("a", "b"):
        file.write_text(content)
        config = configs.override(
            configs.get("digits"),
            detector="patch_knn",
            image_size=32,
            output=str(tmp_path / "out"),
            **given(str(file)),
        )
        pipeline = local.compile_pipeline(plan(config))
        trained.add(
            {c.id: c for c in pipeline.components}["Trainer"].exec_properties["custom_config"]
        )
    assert len(trained) == 2


def test_without_the_option_there_is_none(tmp_path):
    components = built(tmp_path)
    assert "InfraValidator" not in components
    assert "infra_blessing" not in components["Pusher"].inputs


@pytest.mark.parametrize("given", [(), ("--infra-validation",)])
def test_the_option_of_the_command(given, monkeypatch, tmp_path):
    seen = []

    def fake(planned, display):
        seen.append(planned.config.gate.infra_validation)
        raise UserError("enough")

    monkeypatch.setattr(cli.run, "execute", fake)
    monkeypatch.setattr(cli.run, "check_docker", lambda: None)
    CliRunner().invoke(cli.main, ["run", "digits", *given, "--output", str(tmp_path)])
    assert seen == [bool(given)]


def test_without_docker_it_ends_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    result = CliRunner().invoke(
        cli.main, ["run", "digits", "--infra-validation", "--output", str(tmp_path / "out")]
    )
    assert result.exit_code == 2
    assert re.search("starts TensorFlow Serving by docker.*See --infra-validation", result.stderr)
    assert not (tmp_path / "out").exists()
