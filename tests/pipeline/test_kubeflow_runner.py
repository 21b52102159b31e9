"""Compilation and submission; the containers' commands are run in tests/e2e/test_kubeflow.py."""

import http.server
import json
import re
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("kfp")

from kfp.components import load_component_from_file
from PIL import Image

from components.data import sources
from pipeline import cli, configs

IMAGE = "registry.example/image:1"
GPU = ("--gpus", "2", "--cpus", "4", "--memory-gb", "15.5")


def capsad(*arguments):
    return CliRunner().invoke(cli.main, ["kubeflow", *arguments])


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "digits.yaml"
    options = ("--image", IMAGE, *GPU, "--data-dir", "s3://bucket/digits", "--output", str(path))
    result = capsad("compile", "digits", "--anomaly", "3,5", "--epochs", "2", *options)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="module")
def specification(compiled):
    """As the SDK reads it."""
    return load_component_from_file(str(compiled)).pipeline_spec


def test_components_and_edges(specification):
    assert specification.pipeline_info.name == "capsad-digits"
    assert specification.schema_version == "2.1.0"
    edges = {
        name: {
            artifact.task_output_artifact.producer_task
            for artifact in task.inputs.artifacts.values()
        }
        for name, task in specification.root.dag.tasks.items()
    }
    assert edges == {
        "HoldOutExampleGen": set(),
        "StatisticsGen": {"HoldOutExampleGen"},
        "SchemaGen": set(),
        "ExampleValidator": {"StatisticsGen", "SchemaGen"},
        "DataGate": {"ExampleValidator"},
        "Trainer": {"HoldOutExampleGen"},
        "Evaluator": {"HoldOutExampleGen", "Trainer"},
        "Pusher": {"Trainer", "Evaluator"},
        "Report": {"HoldOutExampleGen", "StatisticsGen", "Trainer", "Evaluator"},
    }
    for name, task in specification.root.dag.tasks.items():
        # No training on bad data, and no push of what cannot be explained.
        waits = {"Trainer": {"DataGate"}, "Pusher": {"Report"}}.get(name, set())
        assert set(task.dependent_tasks) == edges[name] | waits


def executors(specification):
    return dict(specification.deployment_spec["executors"].items())


def test_the_trainer_alone_asks_for_a_gpu(specification):
    asked = {
        name: dict(executor["container"]["resources"].items())
        for name, executor in executors(specification).items()
        if "resources" in executor["container"]
    }
    accelerator = dict(asked["Trainer_executor"].pop("accelerator").items())
    assert accelerator == {"type": "nvidia.com/gpu", "count": "2"}
    assert asked == {"Trainer_executor": {"cpuLimit": 4.0, "memoryLimit": 15.5}}


def test_only_containers_of_the_image_for_the_backend_has_nothing_else(specification):
    for name, executor in executors(specification).items():
        assert set(executor) == {"container"}, name
        assert executor["container"]["image"] == IMAGE
        assert list(executor["container"]["command"])[-1] == "pipeline.kubeflow.entrypoint"


def test_options_reach_the_components(specification):
    parameters = specification.root.dag.tasks["HoldOutExampleGen"].inputs.parameters
    config = json.loads(parameters["custom_config"].runtime_value.constant.string_value)
    config = config["custom_config"]["value"]
    assert config["data_dir"] == "s3://bucket/digits"
    assert config["anomaly"] == [3, 5]
    assert re.fullmatch("[0-9a-f]{16}", config["fingerprint"])
    assert config["held_out"] is None
    parameters = specification.root.dag.tasks["Trainer"].inputs.parameters
    config = json.loads(parameters["custom_config"].runtime_value.constant.string_value)
    assert config["settings"]["epochs"] == 2


def test_nothing_of_this_machine_is_in_it(compiled):
    import sklearn

    text = compiled.read_text()
    for folder in (sklearn.__path__[0], str(Path(cli.__file__).parents[2])):
        assert folder not in text


@pytest.mark.parametrize("name", configs.names())
def test_every_pipeline_compiles(name, in_a_folder, monkeypatch):
    digits = sources.find("digits")  # in the place of data that is not there
    monkeypatch.setattr(sources, "get", lambda *arguments, **options: digits)
    mine = ("--images", ".", "--data-dir", "/data") if name == "capsad_images" else ()
    result = capsad("compile", name, "--anomaly", "0", "--image", IMAGE, *mine)
    assert result.output == f"Written to {name}.yaml\n"
    specification = load_component_from_file(f"{name}.yaml").pipeline_spec
    assert specification.pipeline_info.name == name.replace("_", "-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", "data"], "data folder is where the containers find the data"),
        (["--output", "missing/folder.yaml"], "The folder missing does not exist: make it first"),
        (["--anomaly", "ten"], "Unknown anomaly class 'ten'"),
        (["--gpus", "-1"], "--gpus"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, in_a_folder, tmp_path):
    result = capsad("compile", "digits", "--image", IMAGE, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not list(tmp_path.iterdir())


def test_images_of_this_machine_need_their_place_in_the_containers(in_a_folder, tmp_path):
    for name in "abc":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = Image.new("L", (9, 9), color=number)
            pixels.save(tmp_path / "photos" / name / f"{number}.png")
    command = ("compile", "--images", "photos", "--anomaly", "c", "--image", IMAGE)
    result = capsad(*command)
    assert result.exit_code == 2
    assert re.search("containers do not see .*photos: give .*--data-dir", result.output)
    assert capsad(*command, "--data-dir", "/mnt/photos").exit_code == 0
    text = (tmp_path / "capsad_images.yaml").read_text()
    assert "/mnt/photos" in text
    assert str(tmp_path) not in text


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
            experiment = {"experiment_id": "e1", "display_name": "Default"}
            self.answer({"experiments": [experiment]} if "experiments" in self.path else {})

        def do_POST(self):  # noqa: N802
            length = int(self.headers["Content-Length"])
            self.server.posted.append((self.path, json.loads(self.rfile.read(length))))
            self.answer({"run_id": "r1"})

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.posted = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_run_submits_the_specification(server, in_a_folder, tmp_path):
    host = f"http://127.0.0.1:{server.server_port}"
    options = ("--image", IMAGE, "--host", host, "--pipeline-root", "gs://bucket/root")
    result = capsad("run", "digits", *options)
    assert result.exit_code == 0, result.output
    assert f"Started: {host}/#/runs/details/r1" in result.output
    (path, posted) = server.posted[-1]
    assert path.startswith("/apis/v2beta1/runs")
    assert posted["pipeline_spec"]["pipelineInfo"]["name"] == "capsad-digits"
    assert "namespace" not in str(server.posted)  # refused by a Kubeflow of one user
    assert posted["runtime_config"]["pipeline_root"] == "gs://bucket/root"
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_there(in_a_folder):
    result = capsad("run", "digits", "--image", IMAGE, "--host", "http://127.0.0.1:9")
    assert result.exit_code == 2
    assert re.search(r"Error: Kubeflow at http://127.0.0.1:9 did not", result.output)
