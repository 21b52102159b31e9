"""Checksums of the files of a SavedModel, so that a damaged one never gives a wrong score."""

import hashlib
import os
from collections.abc import Iterator

import tensorflow as tf

from models.errors import UserError

# In the format of `sha256sum`. TensorFlow Serving leaves other files in this folder alone.
FILE = "assets.extra/SHA256SUMS"
_CHUNK = 1 << 20


def write_sums(folder: str) -> None:
    """Writes the checksum of each file of the SavedModel in `folder`, a path or URI."""
    lines = [f"{_sum(folder, name)}  {name}\n" for name in _names(folder)]
    tf.io.gfile.makedirs(os.path.join(folder, os.path.dirname(FILE)))
    with tf.io.gfile.GFile(os.path.join(folder, FILE), "w") as file:
        file.write("".join(lines))


def check_whole(folder: str) -> None:
    """Checks that no file of the SavedModel in `folder` is missing or changed.

    Raises:
        UserError: naming the first that is, or if the SavedModel is not one of ours.
    """
    if not tf.io.gfile.exists(os.path.join(folder, FILE)):
        raise UserError(
            f"The model in {folder} has no {FILE}: give a whole one that `capsad run` has pushed."
        )
    name = FILE
    try:
        with tf.io.gfile.GFile(os.path.join(folder, FILE), "rb") as file:
            lines = file.read().decode().splitlines()
        for line in lines:
            stored, _, name = line.partition("  ")
            if _sum(folder, name) != stored:
                raise ValueError("changed")
        if "saved_model.pb" not in {line.partition("  ")[2] for line in lines}:
            raise ValueError("cut")
    except (ValueError, tf.errors.OpError) as error:
        state = "missing" if isinstance(error, tf.errors.NotFoundError) else "changed"
        raise UserError(
            f"The model in {folder} is damaged, because {name} is {state}: take a whole copy of "
            "it, or train and push it again."
        ) from None


def _names(folder: str) -> Iterator[str]:
    for parent, _, files in sorted(tf.io.gfile.walk(folder)):
        for file in sorted(files):
            name = os.path.relpath(os.path.join(parent, file), folder)
            if name != FILE:
                yield name


def _sum(folder: str, name: str) -> str:
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(os.path.join(folder, name), "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
