"""Describes the machine and the libraries with which a result was measured."""

import importlib.metadata
import os
import platform
from pathlib import Path

_DISTRIBUTIONS = ("tfx", "tensorflow", "keras", "apache-beam", "numpy", "jax")


def versions() -> str:
    """Returns the versions of Python and of the installed libraries that results depend on."""
    found = [f"Python {platform.python_version()}"]
    for name in _DISTRIBUTIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def describe() -> str:
    """Returns one line with the processor, the number of cores and the versions."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux alone has it.
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.split(":")[1].strip() for line in lines if "model name" in line)
    model = next(names, platform.processor() or platform.machine())
    return f"{model}, {os.cpu_count()} cores; {versions()}"
