"""scikit-learn's digits."""

import gzip
import importlib.util
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from components.data.sources.base import Source
from components.data.sources.stored_array import reading
from models.errors import UserError

_FILE = "digits.csv.gz"
_SIDE = 8
_WHITE = 16


class Digits(Source):
    """scikit-learn's 1,797 handwritten digits, which come with it: there at once, offline.

    The images are given as they are, 8x8; the networks' preprocessing enlarges them. Grey levels
    0 to 16 become 0 to 255. There is no official test part.

    Reference:
        Alpaydin, Kaynak 1998, Optical Recognition of Handwritten Digits, UCI repository.
    """

    name = "digits"
    title = "Digits: 1,797 handwritten digits, 8x8, grey, part of scikit-learn"
    licence = "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits, test part)"
    how_to_get = "Install scikit-learn: they are part of it."
    origin = "scikit-learn"
    class_names = tuple("0123456789")
    channels = 1

    def __init__(self, folder: str):
        self.folder = str(Path(folder).absolute())

    @classmethod
    def find(cls, data_dir: str | None = None, **options: Any) -> Self | None:
        """Looks into scikit-learn's folder, without importing scikit-learn, or `data_dir`."""
        if data_dir is not None:
            folder = Path(data_dir).expanduser()
            if not os.path.isfile(folder / _FILE):
                raise UserError(
                    f"The data set 'digits' is not in {folder}: missing {_FILE}. It is part of "
                    "scikit-learn, so no data folder is needed.",
                    "data_dir",
                )
            return cls(str(folder))
        spec = importlib.util.find_spec("sklearn")
        if spec is None or spec.origin is None:
            return None
        installed = Path(spec.origin).parent / "datasets" / "data"
        return cls(str(installed)) if (installed / _FILE).is_file() else None

    def labels(self) -> dict[str, np.ndarray]:
        """`train` -> labels, int64, shape (1797,)."""
        return {"train": self._table[:, -1]}

    def stored(self, part: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """Images `start` to `stop`, uint8, shape (8, 8, 1)."""
        del part
        rows = self._table[start:stop, :-1]
        yield from np.rint(rows * (255 / _WHITE)).astype("uint8").reshape(-1, _SIDE, _SIDE, 1)

    def verify(self) -> None:
        """Checks that every row has 64 grey levels and a label."""
        _ = self._table

    @cached_property
    def _table(self) -> np.ndarray:
        path = str(Path(self.folder, _FILE))
        with reading(path), gzip.open(path, "rt") as file:
            try:
                table = np.loadtxt(file, delimiter=",", dtype="int64", ndmin=2)
            except ValueError as error:
                raise UserError(f"{path} is corrupt ({error}). Reinstall scikit-learn.") from error
        columns = _SIDE * _SIDE + 1
        highest = np.r_[np.full(columns - 1, _WHITE), len(self.class_names) - 1]
        if table.shape[1] != columns or (table < 0).any() or (table > highest).any():
            raise UserError(
                f"{path} does not have rows of {columns - 1} grey levels, 0 to {_WHITE}, and a "
                "label, 0 to 9. Reinstall scikit-learn."
            )
        return table
