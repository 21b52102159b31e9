"""What a figure was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path

_DISTRIBUTIONS = ("tfx", "tensorflow", "keras", "apache-beam", "numpy", "jax")


def versions() -> str:
    """Python and what is installed of the libraries that results depend on."""
    found = [f"Python {platform.python_version()}"]
    for name in _DISTRIBUTIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def describe() -> str:
    """One line: processor, cores and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "CPU")
    return f"{model}, {os.cpu_count()} cores; {versions()}"
