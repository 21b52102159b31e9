import functools
import gc
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # There is a worker for each core.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

TINY = {
    "filters": 16,
    "kernel_size": 3,
    "primary_types": 4,
    "primary_dim": 4,
    "primary_kernel_size": 3,
    "class_dim": 6,
    "decoder_units": (32,),
}

gc.disable()  # until all tests are imported


def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that all workers end at about the same time."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish():
    """What the tests import stays, so the garbage collector need not look through it each time."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for variable in list(os.environ):
        if variable.startswith("CAPSAD_"):
            monkeypatch.delenv(variable)


@functools.cache
def lively_weights():
    """Path of random weights of MobileNet whose normalisation fits them.

    With plain random weights, the deeper feature maps are almost 0.
    """
    import keras

    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    images = np.random.default_rng(0).uniform(-1, 1, (64, 32, 32, 3)).astype("float32")
    network(images, training=True)
    path = os.path.join(tempfile.mkdtemp(), "random.weights.h5")
    network.save_weights(path)
    return path


def toy_images(count, classes, seed, size=12, channels=1):
    """Noisy images, each with a bright bar whose place tells the class.

    From 64 pixels on, for networks that see textures, there are many bars, and their distance and
    direction tell it.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = generator.integers(0, 60, (count, size, size, channels), dtype="uint8")
    for image, label in zip(images, labels, strict=True):
        if size < 64:
            image[:, 2 * label : 2 * label + 2] += 180
        elif label % 4 == 3:
            image[::3] += 180
        else:
            image[:, :: label + 2] += 180
    return images, labels


@pytest.fixture(scope="session")
def toys():
    return toy_images


@pytest.fixture
def tiny():
    return dict(TINY)


@pytest.fixture
def fresh_python(tmp_path):
    """Runs code in a new process that cannot import our packages, unless `ours` is set."""

    def run(code, *arguments, ours=False, **environment):
        path = os.getcwd() if ours else ""
        guard = (
            ""
            if ours
            else "import sys\n"
            "for name in ('models', 'components', 'pipeline', 'capsad'):\n"
            "    sys.modules[name] = None\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", guard + code, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run


_WORKER = """
import contextlib, io, json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # for libraries that print
for line in sys.stdin:
    job = json.loads(line)
    os.chdir(job["folder"])
    told, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(told):
            exec(job["code"], {})
    except Exception:
        error = traceback.format_exc()
    print(json.dumps({"told": told.getvalue(), "error": error}), file=answers, flush=True)
"""


@pytest.fixture(scope="session")
def on_backend():
    """Runs code in a process with another backend of Keras, one for all tests: it starts slowly."""
    workers = {}

    def run(backend, code, folder):
        if backend not in workers:
            workers[backend] = subprocess.Popen(
                [sys.executable, "-c", _WORKER],
                env={
                    **os.environ,
                    "PYTHONPATH": os.getcwd(),
                    "KERAS_BACKEND": backend,
                    "XLA_FLAGS": "--xla_backend_optimization_level=0",  # It compiles faster.
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        worker = workers[backend]
        print(json.dumps({"code": code, "folder": str(folder)}), file=worker.stdin, flush=True)
        answer = json.loads(worker.stdout.readline())
        assert answer["error"] is None, answer["error"]
        return answer["told"]

    yield run
    for worker in workers.values():
        worker.kill()
        worker.wait()


def png(image):
    """A uint8 image (H, W, K) as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def to_png():
    return png


@pytest.fixture(scope="session")
def pushed(tmp_path_factory):
    """A tiny trained CapsNet: `scorer`, the Keras model, and `serving`, where it was pushed."""
    from components.serving.export import export, write_warmup_requests
    from models import detectors

    images, labels = toy_images(330, 3, seed=0)
    detector = detectors.get("capsnet", epochs=6, batch_size=30, learning_rate=0.01, **TINY)
    scorer = detector.fit(images[:300], labels[:300], calibration=images[300:])
    serving = tmp_path_factory.mktemp("run") / "serving"
    version = serving / "1700000000"
    export(
        scorer,
        (12, 12),
        str(version),
        class_names=["bolt", "nut", "gr\u00f6\u00dfe"],
        about={"detector": "capsnet", "calibrated_score": "conformity"},
    )
    write_warmup_requests(str(version), images[:4])
    return SimpleNamespace(scorer=scorer, serving=serving, version=version)


@pytest.fixture(scope="session", params=["stand-in", "tensorflow_model_server"])
def model_server(request, pushed, tmp_path_factory):
    """Addresses of a server of that model: `rest` and `grpc`; the real one where there is one."""
    command = [sys.executable, str(Path(__file__).with_name("model_server.py"))]
    if request.param != "stand-in":
        command = [request.param]
        if shutil.which(request.param) is None:
            pytest.skip(f"{request.param} is not on the PATH")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as other:
        rest, grpc = one.getsockname()[1], other.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                *command,
                f"--port={grpc}",
                f"--rest_api_port={rest}",
                "--model_name=capsad",
                f"--model_base_path={pushed.serving}",
            ],
            stdout=file,
            stderr=file,
        )
    url = f"http://127.0.0.1:{rest}"
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{url}/v1/models/capsad") as status:
                if b"AVAILABLE" in status.read():
                    break
        except urllib.error.URLError:
            time.sleep(0.1)
    yield SimpleNamespace(rest=url, grpc=f"grpc://127.0.0.1:{grpc}", process=process)
    process.terminate()
    process.wait()
