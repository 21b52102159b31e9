"""The hardware that the models run on."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import keras

SERVING_DEVICES = ("cpu", "gpu")
_serving_device: ContextVar[str | None] = ContextVar("serving_device", default=None)


def has_accelerator() -> bool:
    """Tells whether Keras computes on a GPU or TPU, under any backend."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.is_available()
    return any(not name.lower().startswith("cpu") for name in keras.distribution.list_devices())


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
