"""The containers' commands of a compiled pipeline, run by hand as Kubeflow runs them."""

import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

pytest.importorskip("kfp")

import yaml

from pipeline import configs
from pipeline.cli.run import execute
from pipeline.kubeflow.entrypoint import local_path
from pipeline.kubeflow_runner import compile_pipeline
from pipeline.plan import plan

# Nine processes, each of which imports TFX: minutes, and more beside other work.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]


class Backend:
    """What the open-source backend does around each container, but for copying artifacts.

    As there, input artifacts come without their types, numbers of their metadata as floats, and
    nobody runs ExampleGen's driver.
    """

    def __init__(self, specification, root):
        self.specification = specification
        self.root = root
        self.artifacts = {}

    def run(self):
        tasks = self.specification["root"]["dag"]["tasks"]
        graph = {name: task.get("dependentTasks", ()) for name, task in tasks.items()}
        for name in TopologicalSorter(graph).static_order():
            self._run(name, tasks[name])

    def _run(self, name, task):
        component = self.specification["components"][name]
        executor = self.specification["deploymentSpec"]["executors"][component["executorLabel"]]
        folder = f"{self.root}/{name}/{len(self.artifacts)}"
        declared = component.get("outputDefinitions", {}).get("artifacts", {})
        outputs = {
            key: {"name": key, "uri": f"{folder}/{key}", "type": output["artifactType"]}
            for key, output in declared.items()
        }
        output_file = f"{local_path(folder)}/output_metadata.json"
        invocation = {
            "inputs": {
                "parameterValues": {
                    key: parameter["runtimeValue"]["constant"]
                    for key, parameter in task.get("inputs", {}).get("parameters", {}).items()
                },
                "artifacts": {
                    key: {"artifacts": [self._input(artifact["taskOutputArtifact"])]}
                    for key, artifact in task.get("inputs", {}).get("artifacts", {}).items()
                },
            },
            "outputs": {
                "artifacts": {key: {"artifacts": [output]} for key, output in outputs.items()},
                "outputFile": output_file,
            },
        }
        os.makedirs(local_path(folder))
        self._execute(executor["container"], json.dumps(invocation))
        written = json.loads(Path(output_file).read_text())["artifacts"] if declared else {}
        for key, output in outputs.items():
            (artifact,) = written[key]["artifacts"]
            assert artifact["uri"] == output["uri"]
            self.artifacts[name, key] = {**output, "metadata": artifact.get("metadata", {})}

    def _input(self, source):
        artifact = self.artifacts[source["producerTask"], source["outputArtifactKey"]]
        number = list(self.artifacts.values()).index(artifact)
        return {**artifact, "name": str(number), "type": {"instanceSchema": ""}}

    def _execute(self, container, invocation):
        python, *command = container["command"]
        assert python == "python"
        arguments = [argument.replace("{{$}}", invocation) for argument in container["args"]]
        result = subprocess.run(
            [sys.executable, *command, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=local_path(self.root),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]

    def folder(self, task, key):
        return Path(local_path(self.artifacts[task, key]["uri"]))


@pytest.fixture(scope="module")
def config():
    return configs.override(configs.get("digits"), epochs=3)


@pytest.fixture(scope="module")
def backend(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kubeflow")
    there = configs.KubeflowConfig(image="capsad:1")
    compile_pipeline(plan(config), there, str(folder / "spec.yaml"))
    backend = Backend(yaml.safe_load((folder / "spec.yaml").read_text()), str(folder / "root"))
    os.makedirs(local_path(backend.root))
    backend.run()
    return backend


def test_the_containers_give_the_result_of_a_local_run(backend, config, tmp_path):
    summary = json.loads((backend.folder("Report", "report") / "summary.json").read_text())
    local = execute(plan(configs.override(config, output=str(tmp_path / "local"))))
    assert summary["verdict"]["blessed"] is local.blessed is True
    assert summary["auroc"] == pytest.approx(local.auroc, abs=1e-6)
    assert summary["accuracy"] == pytest.approx(local.accuracy, abs=1e-6)


def test_the_artifact_of_the_push_is_a_folder_of_versions(backend):
    pushed = backend.artifacts["Pusher", "pushed_model"]
    destination = pushed["metadata"]["pushed_destination"]
    assert Path(destination).parent == Path(pushed["uri"])
    assert Path(destination).name.isdecimal()
    assert Path(local_path(destination), "saved_model.pb").exists()
