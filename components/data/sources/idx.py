"""MNIST's file format, which Fashion-MNIST shares down to the names of the files."""

import logging
import struct
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from components.data.sources.file_source import FileSource
from components.data.sources.stored_array import (
    StoredArray,
    open_plain_or_gzip,
    read_exactly,
    reading,
)
from models.errors import UserError

_PARTS = {"train": "train", "test": "t10k"}
_TEST_LABELS = "t10k-labels-idx1-ubyte"
_UINT8 = 8

# SHA-256 of the decompressed test labels of the data sets with these file names: they are small,
# so a folder tells quickly which one it holds.
_KNOWN_TEST_LABELS = {
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2": "mnist",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34": "fashion_mnist",
}


class IdxSource(FileSource):
    """Four idx files: images and labels, of the training and the test part.

    Attributes:
        checksums: file name -> SHA-256 of the original's *decompressed* content: it also holds
            for files compressed anew, as Debian's are.
    """

    files = tuple(
        f"{prefix}-{kind}-ubyte"
        for prefix in _PARTS.values()
        for kind in ("images-idx3", "labels-idx1")
    )
    origin = "idx files"
    channels = 1
    checksums: ClassVar[dict[str, str]]

    @classmethod
    def belongs(cls, folder: Path, given: bool) -> bool:
        """Tells MNIST from Fashion-MNIST, whose files have the same names.

        The content of the test labels decides. Where that is no original's, the user decides by
        giving the folder; else its name: with "fashion" in it, it is Fashion-MNIST, else MNIST.
        """
        path = folder / _TEST_LABELS
        path = path if path.exists() else path.with_name(f"{_TEST_LABELS}.gz")
        try:
            content = _open_idx(str(path), ndim=1).verify()
        except UserError:
            content = ""  # It is broken: `labels` and `verify` say how.
        if known := _KNOWN_TEST_LABELS.get(content):
            return known == cls.name
        by_name = "fashion_mnist" if "fashion" in folder.absolute().name.lower() else "mnist"
        return given or by_name == cls.name

    @cached_property
    def image_shape(self) -> tuple[int, int]:
        """Height and width."""
        shapes = {part: self._images(part).shape[1:] for part in _PARTS}
        if shapes["train"] != shapes["test"]:
            raise UserError(f"The images in {self.folder} differ in size: {shapes}.")
        height, width = shapes["train"]
        return height, width

    def labels(self) -> dict[str, np.ndarray]:
        """Part -> labels, int64, shape (N,)."""
        return {part: self._labels(part) for part in _PARTS}

    def stored(self, part: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """Images `start` to `stop`, uint8, shape (H, W, 1)."""
        for image in self._images(part).items(start, stop):
            yield image[..., None]

    def verify(self) -> None:
        """Checks the four files; warns if they are sound but not the originals."""
        self.labels()
        _ = self.image_shape
        altered = []
        for file in self.files:
            array = _open_idx(self.path(file), ndim=3 if "images" in file else 1)
            if array.verify() != self.checksums[file]:
                altered.append(self.path(file))
        if altered:
            logging.warning("Not the original %s: %s.", self.title, ", ".join(altered))

    def _images(self, part: str) -> StoredArray:
        return _open_idx(self.path(f"{_PARTS[part]}-images-idx3-ubyte"), ndim=3)

    def _labels(self, part: str) -> np.ndarray:
        array = _open_idx(self.path(f"{_PARTS[part]}-labels-idx1-ubyte"), ndim=1)
        labels = array.load().astype("int64")
        images = self._images(part)
        if len(labels) != images.shape[0]:
            raise UserError(
                f"{array.path} has {len(labels)} labels, but {images.path} has "
                f"{images.shape[0]} images. Get both again."
            )
        if labels.max(initial=0) >= len(self.class_names):
            raise UserError(
                f"{array.path} has a label {labels.max()}; there are {len(self.class_names)} "
                "classes, counted from 0. Get it again."
            )
        return labels


def _open_idx(path: str, ndim: int) -> StoredArray:
    expected = bytes((0, 0, _UINT8, ndim))
    with reading(path), open_plain_or_gzip(path) as file:
        magic = read_exactly(file, len(expected), path)
        if magic != expected:
            raise UserError(
                f"{path} is not an idx file of {ndim} dimensions: it starts with {magic.hex()}, "
                f"not {expected.hex()}. Get it again."
            )
        shape = struct.unpack(f">{ndim}I", read_exactly(file, 4 * ndim, path))
    opener = partial(open_plain_or_gzip, path)
    return StoredArray(path, opener, shape, np.dtype("uint8"), offset=4 + 4 * ndim)
