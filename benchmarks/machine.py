"""What a figure was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path

_DISTRIBUTIONS = ("tfx", "tensorflow", "keras", "apache-beam", "numpy", "jax")


def describe() -> str:
    """One line: processor, cores, Python and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "CPU")
    versions = []
    for name in _DISTRIBUTIONS:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, " + ", ".join(
        versions
    )
