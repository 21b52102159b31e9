import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from components.data.examples import load_digests
from components.training import cluster, strategy
from components.training.trainer import run_fn
from models.errors import UserError
from tests.conftest import TINY

# One step's gradients are the same sums in another order, which float32 rounds otherwise: about
# 1e-7 a step, and no more than 1e-5 after these 16. Halved or doubled gradients, or other images,
# change the losses by per cents.
TOLERANCE = 1e-4

_TRAIN = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
configuration = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[2])
tf.config.set_logical_device_configuration(cpu, configuration)
from components.training.trainer import run_fn
from tfx.components.trainer.fn_args_utils import FnArgs
run_fn(FnArgs(**json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def trainer_arguments(toys, folder, write_split):
    """Gives the arguments of `run_fn` that write to the folder of a name."""
    images, labels = toys(120, 3, seed=0)
    examples = folder / "examples"
    write_split(examples, images, labels)
    write_split(examples, images[:20], labels[:20], "eval")
    write_split(examples, images[20:40], labels[20:40], "calibration")

    def arguments(name):
        run_dir = folder / name / "model_run" / "1"
        run_dir.mkdir(parents=True, exist_ok=True)
        return {
            "train_files": [str(examples / "Split-train" / "*")],
            "serving_model_dir": str(folder / name / "model"),
            "model_run_dir": str(run_dir),
            "custom_config": {
                "detector": "capsnet",
                # 120 images: three batches and one of 24.
                "settings": {
                    "epochs": 4,
                    "batch_size": 32,
                    "learning_rate": 0.01,
                    **TINY,
                },
                "image_size": [12, 12],
                "seed": 0,
                "strategy": "auto",
                "alpha": 0.05,
                "serving_device": "cpu",
                "white": 65535,
                "data": "0123",
                "anomaly": ["odd"],
                "digest": "4567",
            },
        }

    return arguments


@pytest.fixture(scope="module")
def alone(trainer_arguments):
    """Arguments with which one device has trained."""
    arguments = trainer_arguments("alone")
    run_fn(FnArgs(**arguments))
    return arguments


def train(arguments, devices=1, **environment):
    """Starts a Trainer with so many processors."""
    return subprocess.Popen(
        [sys.executable, "-c", _TRAIN, json.dumps(arguments), str(devices)],
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait(*processes):
    for process in processes:
        output, _ = process.communicate(timeout=500)
        assert process.returncode == 0, output[-3000:]


def history(arguments):
    with open(os.path.join(arguments["model_run_dir"], "history.json")) as file:
        return json.load(file)["history"]


def assert_same_training(arguments, reference):
    found, expected = history(arguments), history(reference)
    assert len(expected["loss"]) == 4
    assert expected["loss"][-1] < 0.7 * expected["loss"][0]
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=TOLERANCE, err_msg=name)
    images = np.random.default_rng(0).integers(0, 256, (9, 12, 12, 1), dtype="uint8")
    served, wanted = (
        tf.saved_model.load(of["serving_model_dir"]).signatures["score_arrays"](
            images=tf.constant(images)
        )
        for of in (arguments, reference)
    )
    for name in ("pp", "re"):
        np.testing.assert_allclose(served[name], wanted[name], rtol=1e-3)


def free_ports(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def test_the_model_tells_what_it_has_seen(alone, folder):
    seen = json.loads((folder / "alone" / "seen.json").read_text())
    assert seen["anomaly"] == ["odd"]
    assert len(seen["images"]) == 160
    splits = ("train", "eval", "calibration")
    expected = {
        digest for split in splits for digest in load_digests(str(folder / "examples"), split)
    }
    assert set(seen["images"]) == expected


def test_two_devices_train_as_one(trainer_arguments, alone):
    two = trainer_arguments("two")
    wait(train(two, devices=2))
    assert_same_training(two, alone)


class Killed(BaseException):
    pass


class Kill(keras.callbacks.Callback):
    def __init__(self, *arguments, **options):
        super().__init__()

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise Killed


def test_two_workers_go_on_with_what_one_began_and_the_chief_alone_writes(
    trainer_arguments, alone, folder, tmp_path, monkeypatch
):
    chief, helper = map(trainer_arguments, ("chief", "helper"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keras.callbacks, "TensorBoard", Kill)
        run_fn(FnArgs(**chief))
    assert len(list((folder / "chief").rglob("epoch-00002"))) == 1

    workers = [f"localhost:{port}" for port in free_ports(2)]
    processes = [
        train(
            arguments,
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            ),
            TMPDIR=str(tmp_path),
        )
        for index, arguments in enumerate((chief, helper))
    ]
    wait(*processes)
    assert_same_training(chief, alone)
    assert "history.json" in os.listdir(chief["model_run_dir"])
    assert not [path for path in (folder / "helper").rglob("*") if path.is_file()]
    assert not [path for of in (folder, tmp_path) for path in of.rglob("epoch-*")]


@pytest.mark.parametrize(
    ("config", "workers", "is_chief"),
    [
        (None, 1, True),
        ({"cluster": {}}, 1, True),
        ({"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}, 1, True),
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}, 2, True),
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}, 2, False),
        (
            {
                "cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]},
                "task": {"type": "worker", "index": 0},
            },
            3,
            False,
        ),
    ],
)
def test_the_part_in_the_cluster(config, workers, is_chief, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    task = cluster.task()
    assert (task.workers, task.is_chief) == (workers, is_chief)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_malformed_cluster_is_refused(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG must be like"):
        cluster.task()


def test_one_device_is_one_whatever_there_is(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    assert strategy.choose("one_device").num_replicas_in_sync == 1
    with pytest.raises(UserError, match="strategy must be auto or one_device, not 'mirrored'"):
        strategy.choose("mirrored")


def test_the_model_is_exported_for_the_serving_device(trainer_arguments):
    """Only `built_for` knows which devices there are, so the Trainer must have asked it."""
    arguments = trainer_arguments("npu")
    arguments["custom_config"]["settings"]["epochs"] = 1
    arguments["custom_config"]["serving_device"] = "npu"
    with pytest.raises(ValueError, match="not 'npu'"):
        run_fn(FnArgs(**arguments))
