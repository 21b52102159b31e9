"""The files to copy in deploy/."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVING = DEPLOY / "serving"


def compose():
    return yaml.safe_load((SERVING / "compose.yaml").read_text())["services"]


def test_the_served_model_is_the_one_that_clients_ask_for():
    config = text_format.Parse(
        (SERVING / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    (model,) = config.model_config_list.config
    assert model.name == "capsad"  # the default of `capsad score --model-name`
    assert model.model_version_policy.latest.num_versions == 2
    mounts = [volume.rsplit(":", 2)[1] for volume in compose()["serving"]["volumes"]]
    assert model.base_path in mounts


def test_every_file_that_compose_names_is_there_or_is_the_users():
    services = compose()
    text = " ".join(services["serving"]["command"])
    assert set(re.findall(r"/config/(\S+)", text)) == {
        path.name for path in SERVING.glob("*.config")
    }
    for service in services.values():
        for volume in service["volumes"]:
            if volume.startswith("./"):
                name = volume.partition(":")[0][2:]
                assert (SERVING / name).exists() or name in ("tls.crt", "tls.key", "users")
        assert ":" in service["image"]  # a version, not the newest


def test_arrays_are_never_padded_to_one_size():
    config = (SERVING / "batching.config").read_text()
    assert "pad_variable_length_inputs: false" in config


def test_the_proxy_and_prometheus_find_the_server():
    assert "proxy_pass http://serving:8501;" in (SERVING / "nginx.conf").read_text()
    (job,) = yaml.safe_load((SERVING / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["serving:8501"]}]
    assert f'path: "{job["metrics_path"]}"' in (SERVING / "monitoring.config").read_text()


def test_kserve_serves_tensorflow():
    service = yaml.safe_load((SERVING / "kserve.yaml").read_text())
    assert service["kind"] == "InferenceService"
    assert service["spec"]["predictor"]["model"]["modelFormat"] == {"name": "tensorflow"}


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (("--id=1-1", "--provision_endpoint=x"), "/opt/apache/beam/boot --id=1-1"),
        (("python", "-m", "x"), "python -m x"),
        (("/bin/thing", "y"), "/bin/thing y"),
        (("score", "model", "images"), "capsad score model images"),
        ((), "capsad"),
    ],
)
def test_the_image_runs_what_it_is_given(arguments, runs):
    script = (DEPLOY / "entrypoint.sh").read_text().replace("exec ", "echo ")
    told = subprocess.run(
        ["sh", "-s", "--", *arguments], input=script, capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith(runs)
