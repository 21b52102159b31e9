"""What a figure was measured on."""

import importlib.metadata
import math
import os
import platform
import time
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


def gemm_gflops(size: int = 2048, repeats: int = 20) -> float:
    """Rate of TensorFlow's float32 matrix product on all cores, in GFLOP/s: the best of some."""
    import tensorflow as tf

    factor = tf.random.normal((size, size))
    tf.matmul(factor, factor).numpy()
    best = math.inf
    for _ in range(repeats):
        started = time.perf_counter()
        tf.matmul(factor, factor).numpy()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9
