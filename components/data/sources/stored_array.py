"""Arrays stored in files, read item by item."""

import gzip
import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

import numpy as np

from models.errors import UserError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class StoredArray:
    """An array in C order that follows a header in a file, possibly compressed.

    Attributes:
        path: of the file, for messages.
        open: opens its decompressed content.
        shape: of the array.
        dtype: of the array.
        offset: length of the header in bytes.
    """

    path: str
    open: Callable[[], IO[bytes]]
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    def items(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Items `start` to `stop` along the first axis, in constant memory.

        Raises:
            UserError: if the file is truncated or corrupt.
        """
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        with reading(self.path), self.open() as file:
            file.seek(self.offset + start * size)
            for _ in range(self.shape[0])[start:stop]:
                data = read_exactly(file, size, self.path)
                yield np.frombuffer(data, self.dtype).reshape(self.shape[1:])

    def load(self) -> np.ndarray:
        """The whole array; for small ones.

        Raises:
            UserError: if the file is truncated or corrupt.
        """
        with reading(self.path), self.open() as file:
            file.seek(self.offset)
            size = math.prod(self.shape) * self.dtype.itemsize
            data = read_exactly(file, size, self.path)
        return np.frombuffer(data, self.dtype).reshape(self.shape)

    def verify(self) -> str:
        """Reads to the end, where the checksum of a compressed file stands.

        Returns:
            The SHA-256 of the decompressed content, in hexadecimal digits.

        Raises:
            UserError: if the file is truncated, corrupt or longer than its header says.
        """
        digest, size = hashlib.sha256(), 0
        with reading(self.path), self.open() as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        expected = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if size != expected:
            what = "is truncated" if size < expected else "is too long"
            raise UserError(
                f"{self.path} {what}: its header announces {expected} bytes, it has {size}. "
                "Get it again."
            )
        return digest.hexdigest()


def open_plain_or_gzip(path: str) -> IO[bytes]:
    """Opens a file's content, decompressed if the name ends in `.gz`."""
    opened = gzip.open(path) if path.endswith(".gz") else open(path, "rb")  # noqa: PTH123, SIM115
    return cast(IO[bytes], opened)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns the many errors of reading a broken file into a UserError that names it."""
    try:
        yield
    except EOFError as error:
        raise UserError(f"{path} is truncated. Get it again.") from error
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is corrupt ({error}). Get it again.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def read_exactly(file: IO[bytes], size: int, path: str) -> bytes:
    """The next `size` bytes.

    Raises:
        UserError: if the file ends before.
    """
    data = file.read(size)
    if len(data) != size:
        raise UserError(f"{path} is truncated: {size - len(data)} bytes are missing. Get it again.")
    return data
