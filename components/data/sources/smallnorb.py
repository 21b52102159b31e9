"""smallNORB."""

import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from components.data.sources.file_source import FileSource
from components.data.sources.stored_array import (
    StoredArray,
    open_plain_or_gzip,
    read_exactly,
    reading,
)
from models.errors import UserError

_PREFIXES = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
_CAMERAS = ("left", "right")
# Magic number -> type of the items: little-endian, as everything in these files.
_DTYPES: dict[int, np.dtype[Any]] = {0x1E3D4C55: np.dtype("uint8"), 0x1E3D4C54: np.dtype("<i4")}
_INFO = ("instance", "elevation", "azimuth", "lighting")


class SmallNorb(FileSource):
    """Stereo photographs of 50 toys of five kinds, 24,300 to train and to test, 96x96, grey.

    Args:
        folder: of the six files.
        camera: which of the two views of each toy is taken, `left` or `right`.

    Reference:
        LeCun, Huang, Bottou 2004, Learning methods for generic object recognition with invariance
        to pose and lighting.
    """

    name = "smallnorb"
    title = "smallNORB: 48,600 photographs of toys, 96x96, grey, two cameras"
    licence = "for research, not to be sold (Fu Jie Huang and Yann LeCun, New York University)"
    how_to_get = (
        "Put the six files smallnorb-5x46789x9x18x6x2x96x96-training-{dat,cat,info}.mat.gz and "
        "smallnorb-5x01235x9x18x6x2x96x96-testing-{dat,cat,info}.mat.gz into a folder and give "
        "it as the data folder or in CAPSAD_DATA_DIR."
    )
    options = {"camera": _CAMERAS}
    files = tuple(
        f"{prefix}-{kind}.mat" for prefix in _PREFIXES.values() for kind in ("dat", "cat", "info")
    )
    origin = "binary matrices"
    class_names = ("animal", "human", "airplane", "truck", "car")
    channels = 1

    def __init__(self, folder: str, camera: str = "left"):
        super().__init__(folder)
        self.camera = camera

    @classmethod
    def tfds_keys(cls, **options: Any) -> tuple[str, str, str | None]:
        """Names of the features in TFDS, where the left view is `image` and the right `image2`."""
        image = "image2" if options.get("camera") == "right" else "image"
        return image, "label_category", "instance"

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self._matrix("train", "dat").shape[2:]
        return height, width

    def labels(self) -> dict[str, np.ndarray]:
        """Part -> labels, int64, shape (N,)."""
        labels = {}
        for part in _PREFIXES:
            matrix = self._matrix(part, "cat")
            labels[part] = matrix.load().astype("int64")
            if not np.isin(labels[part], range(len(self.class_names))).all():
                raise UserError(
                    f"{matrix.path} has a category that is not 0 to {len(self.class_names) - 1}. "
                    "Get it again."
                )
        return labels

    def information(self, part: str) -> dict[str, np.ndarray]:
        """How each photograph was taken: `instance`, `elevation`, `azimuth`, `lighting`, (N,)."""
        return dict(zip(_INFO, self._matrix(part, "info").load().T, strict=True))

    def stored(self, part: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """Images `start` to `stop` of the chosen camera, uint8, shape (96, 96, 1)."""
        view = _CAMERAS.index(self.camera)
        # 2, H, W
        for pair in self._matrix(part, "dat").items(start, stop):
            yield pair[view][..., None]

    def groups(self, part: str) -> np.ndarray:
        """The toy on each photograph, int (N,), because its photographs are much alike."""
        instances = self.information(part)["instance"]
        return self.labels()[part] * (int(instances.max()) + 1) + instances

    def verify(self) -> None:
        """Checks headers and sizes of the six files, and that they belong together."""
        for part in _PREFIXES:
            matrices = {kind: self._matrix(part, kind) for kind in ("dat", "cat", "info")}
            for matrix in matrices.values():
                matrix.verify()
                if matrix.shape[0] != matrices["cat"].shape[0]:
                    raise UserError(
                        f"{matrix.path} is of {matrix.shape[0]} photographs, but "
                        f"{matrices['cat'].path} of {matrices['cat'].shape[0]}. Get both again."
                    )
        self.labels()

    def _matrix(self, part: str, kind: str) -> StoredArray:
        expected: dict[str, tuple[str, tuple[Any, ...]]] = {
            "dat": ("uint8", (None, 2, None, None)),
            "cat": ("int32", (None,)),
            "info": ("int32", (None, len(_INFO))),
        }
        path = self.path(f"{_PREFIXES[part]}-{kind}.mat")
        matrix = _open_matrix(path)
        dtype, shape = expected[kind]
        if (
            matrix.dtype != dtype
            or len(matrix.shape) != len(shape)
            or any(
                size not in (None, found) for size, found in zip(shape, matrix.shape, strict=True)
            )
        ):
            raise UserError(
                f"{path} holds {matrix.dtype} of shape {matrix.shape}, not {dtype} of "
                f"{len(shape)} dimensions as smallNORB's '{kind}' file. Get it again."
            )
        return matrix


def _open_matrix(path: str) -> StoredArray:
    """Reads the header: magic number, number of dimensions n, then max(3, n) dimensions."""
    with reading(path), open_plain_or_gzip(path) as file:
        magic, ndim = struct.unpack("<Ii", read_exactly(file, 8, path))
        if magic not in _DTYPES or not 1 <= ndim <= 8:
            raise UserError(
                f"{path} is not a binary matrix of smallNORB: it starts with the magic number "
                f"{magic:#010x} and {ndim} dimensions. Get it again."
            )
        stored = max(3, ndim)
        shape = struct.unpack(f"<{stored}i", read_exactly(file, 4 * stored, path))[:ndim]
    return StoredArray(
        path, partial(open_plain_or_gzip, path), shape, _DTYPES[magic], offset=8 + 4 * stored
    )
