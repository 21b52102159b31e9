"""Arrays in one NumPy .npz file."""

import os
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy

from components.data.sources.base import Source
from components.data.sources.stored_array import StoredArray, reading
from models.errors import UserError

_NAMES = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
_CLASS_NAMES = "class_names"


class Npz(Source):
    """Images and labels in one file, read image by image.

    The arrays are named as in Keras's data sets: `x_train`, uint8 (N, H, W) or (N, H, W, 1 or 3),
    and `y_train`, whole numbers (N,); optionally `x_test` and `y_test`; optionally `class_names`,
    text (C,), without which the classes are named by their numbers.
    """

    name = "npz"
    title = "An .npz file of arrays: x_train, y_train, perhaps x_test, y_test, class_names"
    licence = "yours"
    how_to_get = "Write it by numpy.savez_compressed('FILE.npz', x_train=..., y_train=...)."
    origin = "arrays"

    def __init__(self, path: Path):
        self._path = str(path.absolute())
        self.folder = str(path.absolute().parent)
        with reading(self._path), zipfile.ZipFile(self._path) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist()}
        if not members.issuperset(_NAMES["train"]):
            raise UserError(f"{path} lacks x_train or y_train: {self.how_to_get}")
        self._arrays = {
            part: tuple(_open_npy(self._path, name) for name in names)
            for part, names in _NAMES.items()
            if members.issuperset(names)
        }
        for part, (images, labels) in self._arrays.items():
            self._check(part, images, labels)
        self.image_shape = self._arrays["train"][0].shape[1:3]
        self.channels = (*self._arrays["train"][0].shape, 1)[3]
        if _CLASS_NAMES in members:
            self.class_names = tuple(map(str, _open_npy(self._path, _CLASS_NAMES).load()))
        else:
            self.class_names = tuple(map(str, range(self._count_classes())))
        twice = sorted({name for name in self.class_names if self.class_names.count(name) > 1})
        if twice:
            raise UserError(
                f"{self._path}: class_names has {', '.join(map(repr, twice))} more than once. Give "
                "each class a name of its own."
            )

    @classmethod
    def find(cls, data_dir: str | None = None, **options: Any) -> Self | None:
        """The file `data_dir`."""
        if data_dir is None:
            return None
        path = Path(data_dir).expanduser()
        if not os.path.isfile(path):
            raise UserError(f"The file {path} does not exist.")
        return cls(path)

    def labels(self) -> dict[str, np.ndarray]:
        """Part -> labels, int64, shape (N,)."""
        return {
            part: labels.load().reshape(-1).astype("int64")
            for part, (_, labels) in self._arrays.items()
        }

    def stored(self, part: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """Images `start` to `stop`, uint8, shape (H, W, channels)."""
        for image in self._arrays[part][0].items(start, stop):
            yield image.reshape(*self.image_shape, self.channels)

    def verify(self) -> None:
        """Reads all images, whose checksums the zip format holds, and checks the labels."""
        for images, _ in self._arrays.values():
            images.verify()
        for part, labels in self.labels().items():
            if labels.min() < 0 or labels.max() >= len(self.class_names):
                raise UserError(
                    f"{self._path}: y_{part} has labels from {labels.min()} to {labels.max()}, "
                    f"but there are {len(self.class_names)} classes, counted from 0."
                )

    def _count_classes(self) -> int:
        """Number of classes where they have no names: each number from 0 has an image."""
        found = np.unique(np.concatenate(list(self.labels().values())))
        if found[0] != 0 or found[-1] != len(found) - 1:
            missing = next((k for k, label in enumerate(found.tolist()) if k != label), 0)
            raise UserError(
                f"{self._path}: labels from {found[0]} to {found[-1]} are not numbered from 0 "
                f"without gaps: there is no {missing}. Number them so, or add `class_names`."
            )
        return len(found)

    def _check(self, part: str, images: StoredArray, labels: StoredArray) -> None:
        shape = images.shape
        if (
            images.dtype != np.uint8
            or len(shape) not in (3, 4)
            or shape[3:] not in ((), (1,), (3,))
        ):
            raise UserError(
                f"{self._path}: x_{part} must be uint8 of shape (N, H, W) or (N, H, W, 1 or 3), "
                f"not {images.dtype} {shape}: grey values are whole numbers from 0 to 255."
            )
        if labels.dtype.kind not in "iu" or labels.shape not in ((shape[0],), (shape[0], 1)):
            raise UserError(
                f"{self._path}: y_{part} must be {shape[0]} whole numbers, one an image, not "
                f"{labels.dtype} {labels.shape}."
            )
        if not shape[0] or shape[1:] != self._arrays["train"][0].shape[1:]:
            raise UserError(
                f"{self._path}: x_{part} must hold images of one size with x_train, at least one; "
                f"its shape is {shape}."
            )


def _open_npy(path: str, member: str) -> StoredArray:
    opener = partial(_open_member, path, f"{member}.npy")
    with reading(path), opener() as file:
        try:
            version = npy.read_magic(file)
            read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            shape, fortran_order, dtype = read_header[version](file)
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}: {member} is no NumPy array ({error}).") from error
        if fortran_order or dtype.hasobject:
            raise UserError(f"{path}: {member} must be in C order and hold no Python objects.")
        return StoredArray(path, opener, shape, dtype, offset=file.tell())


def _open_member(path: str, member: str) -> IO[bytes]:
    return zipfile.ZipFile(path).open(member)
