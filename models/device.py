"""The hardware that the models run on."""

import keras


def has_accelerator() -> bool:
    """Tells whether Keras computes on a GPU or TPU, under any backend."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.is_available()
    return any(not name.lower().startswith("cpu") for name in keras.distribution.list_devices())
