"""The containers' commands of a compiled pipeline, run by hand as Kubeflow runs them."""

import gzip
import itertools
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

pytest.importorskip("kfp")

import yaml

from components.data import sources
from components.data.examples import load_split
from pipeline import configs
from pipeline.cli.console import Components
from pipeline.cli.run import execute
from pipeline.kubeflow.entrypoint import local_path
from pipeline.kubeflow_v2_runner import compile_pipeline
from pipeline.plan import plan

# Many processes, each of which imports TFX: minutes, and more beside other work.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]


class Backend:
    """What the open-source backend does around each container, but for copying artifacts.

    As there, input artifacts come without their types, numbers of their metadata as floats, and
    nobody runs ExampleGen's driver. What the cache sees of a component is the values of its
    parameters, the names of its input artifacts, and its container.
    """

    def __init__(self, specification, root):
        self.specification = specification
        self.root = root
        self.names = itertools.count()
        self.cache = {}

    def run(self, until=None, **parameters):
        """Runs the pipeline, or only its first components, up to `until`."""
        declared = self.specification["root"]["inputDefinitions"]["parameters"]
        assert set(parameters) <= set(declared)
        defaults = {name: parameter["defaultValue"] for name, parameter in declared.items()}
        tasks = self.specification["root"]["dag"]["tasks"]
        graph = {name: task.get("dependentTasks", ()) for name, task in tasks.items()}
        run = Run({**defaults, **parameters})
        for name in TopologicalSorter(graph).static_order():
            if until is None or name == until:
                self._run(name, tasks[name], run)
        return run

    def _run(self, name, task, run):
        component = self.specification["components"][name]
        executor = self.specification["deploymentSpec"]["executors"][component["executorLabel"]]
        inputs = {
            "parameterValues": run.values(task),
            "artifacts": {
                key: {"artifacts": [self._input(run, artifact["taskOutputArtifact"])]}
                for key, artifact in task.get("inputs", {}).get("artifacts", {}).items()
            },
        }
        names = {key: of["artifacts"][0]["name"] for key, of in inputs["artifacts"].items()}
        key = json.dumps([name, inputs["parameterValues"], names, executor], sort_keys=True)
        is_cached = task["cachingOptions"].get("enableCache", False)
        if not is_cached or key not in self.cache:
            self.cache[key] = self._execute(name, component, executor["container"], inputs)
            run.executed.add(name)
        artifacts, parameters = self.cache[key]
        run.artifacts |= {(name, output): artifact for output, artifact in artifacts.items()}
        run.outputs |= {(name, output): value for output, value in parameters.items()}

    def _input(self, run, source):
        artifact = run.artifacts[source["producerTask"], source["outputArtifactKey"]]
        return {**artifact, "type": {"instanceSchema": ""}}

    def _execute(self, name, component, container, inputs):
        folder = f"{self.root}/{name}/{next(self.names)}"
        declared = component.get("outputDefinitions", {})
        outputs = {
            key: {
                "name": str(next(self.names)),
                "uri": f"{folder}/{key}",
                "type": of["artifactType"],
            }
            for key, of in declared.get("artifacts", {}).items()
        }
        values = {key: f"{folder}/parameters/{key}" for key in declared.get("parameters", {})}
        output_file = f"{local_path(folder)}/output_metadata.json"
        invocation = {
            "inputs": inputs,
            "outputs": {
                "artifacts": {key: {"artifacts": [output]} for key, output in outputs.items()},
                "parameters": {key: {"outputFile": path} for key, path in values.items()},
                "outputFile": output_file,
            },
        }
        os.makedirs(local_path(folder))
        self._start(container, json.dumps(invocation))
        written = json.loads(Path(output_file).read_text())["artifacts"] if outputs else {}
        made = {}
        for key, output in outputs.items():
            (artifact,) = written[key]["artifacts"]
            assert artifact["uri"] == output["uri"]
            made[key] = {**output, "metadata": artifact.get("metadata", {})}
        return made, {key: Path(local_path(path)).read_text() for key, path in values.items()}

    def _start(self, container, invocation):
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


class Run:
    """One run: its parameters, and what came of it."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.executed = set()
        self.artifacts = {}
        self.outputs = {}

    def values(self, task):
        """The values of a task's parameters."""
        given = task.get("inputs", {}).get("parameters", {})
        return {key: self._value(parameter) for key, parameter in given.items()}

    def _value(self, parameter):
        ((kind, of),) = parameter.items()
        if kind == "componentInputParameter":
            return self.parameters[of]
        if kind == "taskOutputParameter":
            return self.outputs[of["producerTask"], of["outputParameterKey"]]
        return of["constant"]

    def folder(self, task, key):
        return Path(local_path(self.artifacts[task, key]["uri"]))

    def summary(self):
        return json.loads((self.folder("Report", "report") / "summary.json").read_text())


@pytest.fixture(scope="module")
def config():
    return configs.override(configs.get("digits"), epochs=3)


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kubeflow")
    there = configs.KubeflowConfig(image="capsad:1")
    compile_pipeline("digits", {"epochs": "3"}, there, str(folder / "spec.yaml"))
    backend = Backend(yaml.safe_load((folder / "spec.yaml").read_text()), str(folder / "root"))
    os.makedirs(local_path(backend.root))
    return backend


@pytest.fixture(scope="module")
def first(backend):
    """The first run, with the compiled defaults."""
    run = backend.run()
    assert run.executed == set(backend.specification["components"])
    return run


def test_the_containers_give_the_result_of_a_local_run(first, config, tmp_path):
    summary = first.summary()
    local = execute(
        plan(configs.override(config, output=str(tmp_path / "local"))), Components(shown=False)
    )
    assert summary["verdict"]["blessed"] is local.blessed is True
    assert summary["auroc"] == pytest.approx(local.auroc, abs=1e-6)
    assert summary["accuracy"] == pytest.approx(local.accuracy, abs=1e-6)


def test_the_artifact_of_the_push_is_a_folder_of_versions(first):
    pushed = first.artifacts["Pusher", "pushed_model"]
    destination = pushed["metadata"]["pushed_destination"]
    assert Path(destination).parent == Path(pushed["uri"])
    assert Path(destination).name.isdecimal()
    assert Path(local_path(destination), "saved_model.pb").exists()


def test_the_same_run_again_only_looks_at_the_data(backend, first):
    again = backend.run()
    assert again.executed == {"Plan"}
    assert again.summary() == first.summary()


def test_another_gate_trains_nothing_again(backend, first):
    run = backend.run(min_auroc="1")
    assert run.executed == {"Plan", "Evaluator", "Report", "Pusher"}
    assert run.summary()["auroc"] == first.summary()["auroc"]
    assert run.summary()["verdict"]["blessed"] is False


def test_another_anomaly_and_other_epochs_of_the_same_file(backend, first):
    run = backend.run(anomaly="3, 5", epochs="2")
    assert run.executed == set(backend.specification["components"]) - {"SchemaGen"}
    assert run.summary()["normal_classes"] == 8
    examples = load_split(str(run.folder("HoldOutExampleGen", "examples")), "test", (16, 16))
    assert set(examples.texts[examples.labels < 0]) == {"3", "5"}
    history = json.loads((run.folder("Trainer", "model_run") / "history.json").read_text())
    assert history["epochs"] == 2
    assert {len(values) for values in history["history"].values()} == {2}


def test_changed_data_changes_what_the_cache_sees(backend, tmp_path):
    def seen():
        run = backend.run(until="Plan", data_dir=str(tmp_path))
        return {
            name: run.values(backend.specification["root"]["dag"]["tasks"][name])
            for name in ("HoldOutExampleGen", "Trainer")
        }

    found = Path(sources.find("digits").folder, "digits.csv.gz")
    rows = gzip.decompress(found.read_bytes()).splitlines(keepends=True)
    (tmp_path / found.name).write_bytes(gzip.compress(b"".join(rows)))
    before = seen()
    assert seen() == before
    (tmp_path / found.name).write_bytes(gzip.compress(b"".join(rows[:-1])))
    after = seen()
    assert after["HoldOutExampleGen"] != before["HoldOutExampleGen"]
    assert after["Trainer"] != before["Trainer"]
