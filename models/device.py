"""The hardware that the models run on."""

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import keras

SERVING_DEVICES = ("cpu", "gpu")
_serving_device: ContextVar[str | None] = ContextVar("serving_device", default=None)


def has_accelerator() -> bool:
    """Tells whether Keras computes on a GPU or TPU, under any backend."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.is_available()
    return any(not name.lower().startswith("cpu") for name in keras.distribution.list_devices())


def has_fast_bfloat16() -> bool:
    """Tells whether products of bfloat16 are known to be faster here than those of float32.

    This is so for TensorFlow on x86 processors with instructions for them. Without these, bfloat16
    is slower. Other hardware was not measured.
    """
    if keras.backend.backend() != "tensorflow" or has_accelerator():
        return False
    return bool(_processor_flags() & {"avx512_bf16", "amx_bf16"})


@functools.cache
def _processor_flags() -> frozenset[str]:
    """The instruction sets of the processor, which only Linux lists."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


@contextlib.contextmanager
def built_for(device: str) -> Iterator[None]:
    """Graphs that are built within this context suit `device`, not the machine that builds them.

    Args:
        device: one of `SERVING_DEVICES`.

    Raises:
        ValueError: if there is no such device.
    """
    if device not in SERVING_DEVICES:
        raise ValueError(f"The serving device must be cpu or gpu, not {device!r}.")
    token = _serving_device.set(device)
    try:
        yield
    finally:
        _serving_device.reset(token)


def targets_accelerator() -> bool:
    """Tells whether what is built now is for a GPU or TPU: for this machine, unless `built_for`."""
    device = _serving_device.get()
    return has_accelerator() if device is None else device != "cpu"
