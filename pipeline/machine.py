"""Describes the machine and the libraries with which a result was measured."""

import importlib.metadata
import os
import platform
from pathlib import Path

_DISTRIBUTIONS = ("tfx", "tensorflow", "keras", "apache-beam", "numpy", "jax")
# Linux alone has these.
_PROCESSORS = Path("/proc/cpuinfo")
_GPUS = Path("/proc/driver/nvidia/gpus")


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
    """Returns one line with the processor, the number of cores, NVIDIA's GPUs and the versions."""
    processor = _values(_PROCESSORS, "model name") or [platform.processor() or platform.machine()]
    gpus = [name for file in sorted(_GPUS.glob("*/information")) for name in _values(file, "Model")]
    hardware = [processor[0], f"{os.cpu_count()} cores", *gpus]
    return f"{', '.join(hardware)}; {versions()}"


def _values(file: Path, key: str) -> list[str]:
    """Returns the values of `key` in a file of lines `key : value`."""
    lines = file.read_text().splitlines() if file.exists() else []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in pairs if name.strip() == key]
