"""The wiring of the pipeline, which is built and not run."""

from dataclasses import replace

import pytest
from click.testing import CliRunner
from google.protobuf import json_format
from tfx.proto import infra_validator_pb2

from pipeline import cli, configs
from pipeline.pipeline import create_pipeline


def built(tmp_path, **gate):
    config = configs.override(configs.get("digits"), output=str(tmp_path))
    config = replace(config, gate=replace(config.gate, **gate))
    return {component.id: component for component in create_pipeline(config).components}


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


def test_without_the_option_there_is_none(tmp_path):
    components = built(tmp_path)
    assert "InfraValidator" not in components
    assert "infra_blessing" not in components["Pusher"].inputs


@pytest.mark.parametrize("given", [(), ("--infra-validation",)])
def test_the_option_of_the_command(given, monkeypatch, tmp_path):
    from pipeline import run as run_module

    seen = []

    def fake(config):
        seen.append(config.gate.infra_validation)
        raise run_module.RunFailed("enough")

    monkeypatch.setattr(run_module, "run", fake)
    CliRunner().invoke(cli.main, ["run", "digits", *given, "--output", str(tmp_path)])
    assert seen == [bool(given)]


def test_without_docker_it_ends_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    result = CliRunner().invoke(
        cli.main, ["run", "digits", "--infra-validation", "--output", str(tmp_path / "out")]
    )
    assert result.exit_code == 2
    assert "--infra-validation starts TensorFlow Serving by docker" in result.stderr
    assert not (tmp_path / "out").exists()
