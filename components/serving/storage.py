"""Publishes folders whole, on this machine or in an object store."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from models import files


@contextlib.contextmanager
def incoming(folder: str) -> Iterator[str]:
    """Gives a name where nothing is, and removes what is still there when the block ends.

    What a killed run left there is removed first.

    Args:
        folder: path or URI that no reader takes for something finished.
    """
    _remove(folder)
    try:
        yield folder
    finally:
        _remove(folder)


def publish(source: str, target: str) -> None:
    """Renames a finished folder, which so appears whole, to `target`, a name beside it.

    Raises:
        OSError: if that fails on this machine.
        tf.errors.OpError: if that fails in an object store.
    """
    if "://" in target:
        tf.io.gfile.rename(source, target, overwrite=True)
    else:
        files.publish(source, target)


def _remove(folder):
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
