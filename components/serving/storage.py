"""Publishes complete folders, on this machine or in an object store."""

import contextlib
import glob
import os
import platform
import uuid
from collections.abc import Iterator

import tensorflow as tf

from models import files


@contextlib.contextmanager
def incoming(folder: str) -> Iterator[str]:
    """Yields `folder`, which does not exist yet, and removes it when the block ends.

    If a killed run left something there, that is removed first.

    Args:
        folder: path or URI that no reader takes for a finished result.
    """
    _remove(folder)
    try:
        yield folder
    finally:
        _remove(folder)


def own_name(target: str) -> str:
    """A name beside `target` for what this process makes; what killed ones left is removed.

    Another machine may be at work beside it, so only what processes of this machine left goes.
    """
    if "://" in target:
        return f"{target}.{uuid.uuid4().hex[:8]}.incoming"
    start = f"{target}.{platform.node()}-"
    for left in glob.glob(f"{glob.escape(start)}*.incoming"):
        number = left[len(start) : -len(".incoming")]
        if number.isdecimal() and not os.path.exists(f"/proc/{number}"):
            _remove(left)
    return f"{start}{os.getpid()}.incoming"


def publish(source: str, target: str) -> None:
    """Renames a finished folder, so that it appears whole under its new name.

    Args:
        source: path or URI of the finished folder.
        target: its new path or URI, on the same file system.

    Raises:
        OSError: if this fails on this machine.
        tf.errors.OpError: if this fails in an object store.
    """
    if "://" in target:
        tf.io.gfile.rename(source, target, overwrite=True)
    else:
        files.publish(source, target)


def _remove(folder: str) -> None:
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
