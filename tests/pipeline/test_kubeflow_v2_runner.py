"""Compilation and submission; the containers' commands are run in tests/e2e/test_kubeflow.py."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("kfp")

import yaml
from google.protobuf import json_format
from kfp.components import load_component_from_file

from components.data import sources
from pipeline import cli, configs, kubeflow_v2_runner
from pipeline.kubeflow.parameters import PARAMETERS

IMAGE = "registry.example/image:1"
CONTAINERS = (
    *("--gpus", "2", "--cpus", "1", "--cpus", "Trainer=4", "--memory-gb", "Trainer=15.5"),
    *("--volume", "/data=claim", "--volume", "/more=other"),
    *("--secret", "AWS_SECRET_ACCESS_KEY=s3/secret-key", "--env", "AWS_REGION=eu"),
    *("--toleration", "nvidia.com/gpu=present:NoSchedule", "--toleration", "spot"),
    *("--retries", "3"),
)


def capsad(*arguments):
    return CliRunner().invoke(cli.main, ["kubeflow", *arguments])


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "digits.yaml"
    options = ("--image", IMAGE, *CONTAINERS, "--data-dir", "s3://bucket/digits")
    chosen = ("--anomaly", "3,5", "--epochs", "2", "--set", "shift=1", "--min-auroc", "0.7")
    result = capsad("compile", "digits", *chosen, *options, "--output", str(path))
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="module")
def component(compiled):
    """As the SDK reads it."""
    return load_component_from_file(str(compiled))


@pytest.fixture(scope="module")
def specification(component):
    return component.pipeline_spec


def producers(task):
    artifacts = {of.task_output_artifact.producer_task for of in task.inputs.artifacts.values()}
    values = {of.task_output_parameter.producer_task for of in task.inputs.parameters.values()}
    return (artifacts | values) - {""}


def test_components_and_edges(specification):
    assert specification.pipeline_info.name == "capsad-digits"
    assert specification.schema_version == "2.1.0"
    edges = {name: producers(task) for name, task in specification.root.dag.tasks.items()}
    assert edges == {
        "Plan": set(),
        "HoldOutExampleGen": {"Plan"},
        "StatisticsGen": {"HoldOutExampleGen"},
        "SchemaGen": set(),
        "ExampleValidator": {"StatisticsGen", "SchemaGen"},
        "DataGate": {"ExampleValidator"},
        "Trainer": {"Plan", "HoldOutExampleGen"},
        "Evaluator": {"Plan", "HoldOutExampleGen", "Trainer"},
        "Pusher": {"Trainer", "Evaluator"},
        "Report": {"Plan", "HoldOutExampleGen", "StatisticsGen", "Trainer", "Evaluator"},
    }
    for name, task in specification.root.dag.tasks.items():
        # No training on bad data, and no push of what cannot be explained.
        waits = {"Trainer": {"DataGate"}, "Pusher": {"Report"}}.get(name, set())
        assert set(task.dependent_tasks) == edges[name] | waits


def test_only_the_plan_is_never_cached(specification):
    cached = {
        name: t.caching_options.enable_cache for name, t in specification.root.dag.tasks.items()
    }
    assert cached.pop("Plan") is False
    assert set(cached.values()) == {True}


def executors(specification):
    return {
        label: json_format.MessageToDict(executor)
        for label, executor in specification.deployment_spec["executors"].items()
    }


def test_resources_of_every_component_and_of_the_trainer(specification):
    asked = {
        label: executor["container"]["resources"]
        for label, executor in executors(specification).items()
    }
    assert asked.pop("Trainer_executor") == {
        "cpuLimit": 4.0,
        "memoryLimit": 15.5,
        "accelerator": {"type": "nvidia.com/gpu", "count": "2"},
    }
    assert len(asked) == 9
    assert all(resources == {"cpuLimit": 1.0} for resources in asked.values())


def test_variables_and_retries_of_every_component(specification):
    for executor in executors(specification).values():
        assert executor["container"]["env"] == [{"name": "AWS_REGION", "value": "eu"}]
    for task in specification.root.dag.tasks.values():
        assert task.retry_policy.max_retry_count == 3


def test_what_only_kubernetes_knows(component, specification):
    platform = json_format.MessageToDict(component.platform_spec)
    found = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(found) == set(executors(specification))
    for executor in found.values():
        # The form of kfp-kubernetes' mount_pvc, use_secret_as_env and add_toleration.
        assert executor == {
            "pvcMount": [
                {"mountPath": "/data", "constant": "claim"},
                {"mountPath": "/more", "constant": "other"},
            ],
            "secretAsEnv": [
                {
                    "secretName": "s3",
                    "keyToEnv": [{"secretKey": "secret-key", "envVar": "AWS_SECRET_ACCESS_KEY"}],
                }
            ],
            "tolerations": [
                {
                    "key": "nvidia.com/gpu",
                    "operator": "Equal",
                    "value": "present",
                    "effect": "NoSchedule",
                },
                {"key": "spot", "operator": "Exists"},
            ],
        }


def test_only_containers_of_the_image_for_the_backend_has_nothing_else(specification):
    for name, executor in executors(specification).items():
        assert set(executor) == {"container"}, name
        assert executor["container"]["image"] == IMAGE
        module = "plan_step" if name == "Plan_executor" else "entrypoint"
        assert executor["container"]["command"] == ["python", "-m", f"pipeline.kubeflow.{module}"]


def test_options_are_the_defaults_of_parameters(specification):
    declared = specification.root.input_definitions.parameters
    assert set(declared) == set(PARAMETERS)
    given = {name: of.default_value.string_value for name, of in declared.items()}
    assert {name: text for name, text in given.items() if text} == {
        "anomaly": "3,5",
        "data_dir": "s3://bucket/digits",
        "epochs": "2",
        "min_auroc": "0.7",
        "settings": "shift=1",
    }
    assert all(of.is_optional and of.description for of in declared.values())
    inputs = specification.root.dag.tasks["Plan"].inputs.parameters
    constant = inputs["pipeline"].runtime_value.constant.string_value
    assert constant == "capsad_digits"
    for name in PARAMETERS:
        assert inputs[name].component_input_parameter == name


def test_nothing_of_the_data_of_this_machine_is_in_it(compiled):
    import sklearn

    text = compiled.read_text()
    for folder in (sklearn.__path__[0], str(Path(cli.__file__).parents[2])):
        assert folder not in text
    assert sources.find("digits").index().fingerprint not in text


@pytest.mark.parametrize("name", configs.names())
def test_every_pipeline_compiles_without_its_data(name, in_a_folder, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    result = capsad("compile", name, "--image", IMAGE)
    assert result.output == f"Written to {name}.yaml\n"
    documents = list(yaml.safe_load_all(Path(f"{name}.yaml").read_text()))
    assert len(documents) == 1  # Nothing is asked of Kubernetes.
    assert documents[0]["pipelineInfo"]["name"] == name.replace("_", "-")
    assert not any("resources" in of for of in documents[0]["deploymentSpec"]["executors"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", "data"], "'data' is not an absolute path, nor does it begin by gs://"),
        (["--output", "missing/folder.yaml"], "The folder missing does not exist: make it first"),
        (["--set", "colour=1"], "colour"),
        (["--gpus", "-1"], "--gpus"),
        (["--image", "http://registry/x"], "'http://registry/x' is not the name of an image"),
        (["--cpus", "Trainr=1"], "There is no component 'Trainr': there are .*Trainer.*--cpus"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, in_a_folder, tmp_path):
    result = capsad("compile", "digits", "--image", IMAGE, *arguments)
    assert result.exit_code == 2
    assert re.search(message, result.output)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CAPSAD_SCORE_IMAGES", "."), ("CAPSAD_IMAGES", "."), ("CAPSAD_INFRA_VALIDATION", "yes")],
)
def test_variables_that_mean_nothing_on_kubeflow(variable, value, in_a_folder, monkeypatch):
    monkeypatch.setenv(variable, value)
    result = capsad("compile", "images", "--image", IMAGE)
    assert result.exit_code == 2
    assert result.output == f"Error: {variable} has no meaning on Kubeflow: unset it.\n"


def test_variables_are_defaults_too(in_a_folder, monkeypatch):
    monkeypatch.setenv("CAPSAD_EPOCHS", "4")
    monkeypatch.setenv("CAPSAD_SEED", "5")
    monkeypatch.setenv("CAPSAD_BEAM_ARGS", "--direct_num_workers=2")
    assert capsad("compile", "digits", "--image", IMAGE, "--epochs", "3").exit_code == 0
    (compiled,) = yaml.safe_load_all(Path("capsad_digits.yaml").read_text())
    declared = compiled["root"]["inputDefinitions"]["parameters"]
    assert declared["epochs"]["defaultValue"] == "3"
    assert declared["seed"]["defaultValue"] == "5"
    container = compiled["deploymentSpec"]["executors"]["Evaluator_executor"]["container"]
    assert "--direct_num_workers=2" in container["args"]


@pytest.fixture
def server():
    """An API server of Kubeflow Pipelines, as far as starting a run goes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, content):
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):  # noqa: N802
            self.server.asked.append(urllib.parse.unquote(self.path))
            experiment = {"experiment_id": "e1", "display_name": "Default"}
            self.answer({"experiments": [experiment]} if "experiments" in self.path else {})

        def do_POST(self):  # noqa: N802
            length = int(self.headers["Content-Length"])
            self.server.posted.append((self.path, json.loads(self.rfile.read(length))))
            self.answer({"run_id": "r1", "recurring_run_id": "rr1"})

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.posted, server.asked = [], []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def host(server):
    return f"http://127.0.0.1:{server.server_port}"


def test_run_submits_the_specification(server, host, in_a_folder, tmp_path):
    options = ("--image", IMAGE, "--host", host, "--pipeline-root", "gs://bucket/root")
    more = ("--service-account", "trainer", "--volume", "/data=claim")
    result = capsad("run", "digits", *options, *more)
    assert result.exit_code == 0, result.output
    assert f"Started: {host}/#/runs/details/r1" in result.output
    (path, posted) = server.posted[-1]
    assert path.startswith("/apis/v2beta1/runs")
    specification = posted["pipeline_spec"]["pipeline_spec"]
    assert specification["pipelineInfo"]["name"] == "capsad-digits"
    assert "kubernetes" in posted["pipeline_spec"]["platform_spec"]["platforms"]
    tasks = specification["root"]["dag"]["tasks"]
    assert tasks["Trainer"]["cachingOptions"] == {"enableCache": True}
    assert tasks["Plan"]["cachingOptions"] == {}
    assert posted["experiment_id"] == "e1"
    assert posted["service_account"] == "trainer"
    assert "namespace" not in str(server.posted)  # refused by a Kubeflow of one user
    assert posted["runtime_config"]["pipeline_root"] == "gs://bucket/root"
    assert not list(tmp_path.iterdir())


def test_a_compiled_file_runs_with_other_parameters(server, host, compiled):
    result = capsad("submit", str(compiled), "--host", host, "--anomaly", "7", "--seed", "2")
    assert result.exit_code == 0, result.output
    (_, posted) = server.posted[-1]
    assert posted["runtime_config"]["parameters"] == {"anomaly": "7", "seed": "2"}


def test_variables_are_parameters_of_a_submission(server, host, compiled, monkeypatch):
    monkeypatch.setenv("CAPSAD_SEED", "8")
    monkeypatch.setenv("CAPSAD_EPOCHS", "6")
    assert capsad("submit", str(compiled), "--host", host, "--epochs", "5").exit_code == 0
    (_, posted) = server.posted[-1]
    assert posted["runtime_config"]["parameters"] == {"seed": "8", "epochs": "5"}
    monkeypatch.setenv("CAPSAD_SCORE_IMAGES", "photos")
    refused = capsad("submit", str(compiled), "--host", host)
    assert refused.output == "Error: CAPSAD_SCORE_IMAGES has no meaning on Kubeflow: unset it.\n"


def test_names_tell_runs_apart(server, host, compiled):
    for anomaly in ((), ("--anomaly", "7")):
        assert capsad("submit", str(compiled), "--host", host, *anomaly).exit_code == 0
    names = [posted["display_name"] for _, posted in server.posted]
    time = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(f"capsad_digits anomaly 3,5 {time}", names[0])
    assert re.fullmatch(f"capsad_digits anomaly 7 {time}", names[1])


def test_no_cache(server, host, compiled):
    assert capsad("submit", str(compiled), "--host", host, "--no-cache").exit_code == 0
    (_, posted) = server.posted[-1]
    for task in posted["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"].values():
        assert not task["cachingOptions"].get("enableCache")


def test_a_recurring_run(server, host, compiled):
    options = ("--cron", "0 0 3 * * *", "--epochs", "9", "--experiment", "nightly", "--no-cache")
    result = capsad("submit", str(compiled), "--host", host, *options)
    assert result.exit_code == 0, result.output
    assert f"Started: {host}/#/recurringrun/details/rr1" in result.output
    (path, posted) = server.posted[-1]
    assert path.startswith("/apis/v2beta1/recurringruns")
    assert posted["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert posted["no_catchup"] is True
    assert posted["runtime_config"]["parameters"] == {"epochs": "9"}
    assert "nightly" in server.asked[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cron", "0 3 * * *"], "'0 3 \\* \\* \\*' is not a time of six fields, seconds first"),
        (["--set", "colour=1"], "colour"),
        (["--data-dir", "data"], "not an absolute path"),
    ],
)
def test_what_cannot_be_submitted(arguments, message, server, host, compiled):
    result = capsad("submit", str(compiled), "--host", host, *arguments)
    assert result.exit_code == 2
    assert re.search(message, result.output)
    assert not server.posted


@pytest.mark.parametrize("content", ["", "a: [", "[1]", "a: 1", "root: {dag: {tasks: {}}}", None])
def test_what_was_not_compiled_here(content, host, in_a_folder):
    if content is not None:
        Path("x.yaml").write_text(content)
    result = capsad("submit", "x.yaml", "--host", host)
    assert result.exit_code == 2
    assert re.fullmatch(r"Error: (Cannot read x.yaml|x.yaml is not a file that).*\n", result.output)


def test_a_server_that_is_not_there(compiled):
    result = capsad("submit", str(compiled), "--host", "http://127.0.0.1:9")
    assert result.exit_code == 2
    assert re.search(r"Error: Kubeflow at http://127.0.0.1:9 did not", result.output)


def tfx_for_vertex(folder, **variables):
    """`tfx pipeline create` of the file, from another folder."""
    runner = Path(kubeflow_v2_runner.__file__)
    return subprocess.run(
        [
            *(sys.executable, "-m", "tfx.tools.cli.cli_main", "pipeline", "create"),
            *("--engine", "vertex", "--pipeline_path", str(runner)),
        ],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # for pip
            "HOME": str(folder),  # where TFX keeps what it compiles
            "PYTHONPATH": str(runner.parents[1]),
            "CAPSAD_PIPELINE": "digits",
            "CAPSAD_IMAGE": IMAGE,
            "CAPSAD_EPOCHS": "2",
            **variables,
        },
        capture_output=True,
        text=True,
    )


def test_the_tfx_command_compiles_for_vertex(tmp_path, specification):
    made = tfx_for_vertex(tmp_path)
    assert 'Pipeline "capsad-digits" created successfully.' in made.stdout, made.stderr
    (file,) = tmp_path.rglob("pipeline.json")
    job = json.loads(file.read_text())
    assert set(job["pipelineSpec"]["root"]["dag"]["tasks"]) == set(specification.root.dag.tasks)
    defaults = job["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]
    assert defaults["epochs"]["defaultValue"] == "2"
    assert not list(tmp_path.glob("*.yaml"))

    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    submitted = aiplatform.PipelineJob(
        display_name="digits",
        template_path=str(file),
        pipeline_root="gs://bucket",
        parameter_values={"anomaly": "3,5"},
        project="project",
        location="us-central1",
        credentials=AnonymousCredentials(),
    )
    config = submitted.to_dict()["runtimeConfig"]
    assert config["parameterValues"] == {"anomaly": "3,5"}


def test_the_tfx_command_says_what_vertex_has_not(tmp_path):
    made = tfx_for_vertex(tmp_path, CAPSAD_VOLUMES="/data=claim")
    assert made.returncode
    assert "Vertex AI has no volumes" in made.stderr + made.stdout
    assert not list(tmp_path.rglob("pipeline.json"))
