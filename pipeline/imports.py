"""Imports of large libraries."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def large_imports() -> Iterator[None]:
    """Keeps Python's garbage collector away from what is imported in this block, now and later.

    Modules of TensorFlow and TFX are a million objects that stay until the end. Looking through
    them for garbage again and again takes a fifth of a short run.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # Only once, because garbage that is frozen is never freed.
            gc.freeze()
        if was_enabled:
            gc.enable()
