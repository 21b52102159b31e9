import os
import subprocess
import sys

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TINY = {
    "filters": 16,
    "kernel_size": 3,
    "primary_types": 4,
    "primary_dim": 4,
    "primary_kernel_size": 3,
    "class_dim": 6,
    "decoder_units": (32,),
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for variable in list(os.environ):
        if variable.startswith("CAPSAD_"):
            monkeypatch.delenv(variable)


def toy_images(count, classes, seed, size=12, channels=1):
    """Noisy images, each with a bright bar whose place tells the class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = generator.integers(0, 60, (count, size, size, channels), dtype="uint8")
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 180
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
            "for name in ('models', 'components', 'pipeline'):\n"
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
