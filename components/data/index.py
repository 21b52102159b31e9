"""What a data set consists of: a row for each image, with its class and the digest of its content.

This is the identity of the data: an image that was moved, renamed, replaced or added changes it.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.files import write_whole

_DIGEST_SIZE = 32


@dataclass(frozen=True)
class Part:
    """The images of one part of a data set, in a fixed order."""

    labels: np.ndarray
    """int64, shape (N,): indices of classes."""
    digests: np.ndarray
    """uint8, shape (N, 32): SHA-256 of each image's content."""
    names: np.ndarray
    """str, shape (N,): paths relative to the folder of the data; empty where files hold many
    images."""
    groups: np.ndarray
    """int64, shape (N,): images of one group go into one split; -1: an image of no group."""
    masks: np.ndarray
    """str, shape (N,): paths of the masks of where images are anomalous; empty: there is none."""
    mask_digests: np.ndarray
    """str, shape (N,): SHA-256 of each mask's content, hexadecimal; empty: there is none."""

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        digests: list[bytes],
        names: list[str] | None = None,
        groups: np.ndarray | None = None,
        masks: list[tuple[str, str]] | None = None,
    ) -> "Part":
        """A part from digests of 32 bytes each; what is left out there is not.

        `masks` has a path and a hexadecimal digest for each image, both empty where there is none.
        """
        masks = masks or [("", "")] * len(labels)
        return cls(
            np.asarray(labels, "int64"),
            np.frombuffer(b"".join(digests), "uint8").reshape(-1, _DIGEST_SIZE),
            np.array(names if names else [""] * len(labels), dtype=str),
            np.full(len(labels), -1) if groups is None else groups.astype("int64"),
            np.array([path for path, _ in masks], dtype=str),
            np.array([digest for _, digest in masks], dtype=str),
        )

    def keys(self) -> list[bytes]:
        """What decides the split of each image: the digest of its content, or its group."""
        return [
            digest.tobytes() if group < 0 else f"group {group}".encode()
            for digest, group in zip(self.digests, self.groups.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Index:
    """All images of a data set."""

    class_names: tuple[str, ...]
    """Names of the classes, in the order of their indices."""
    channels: int
    """1 or 3."""
    white: int
    """Grey value of 16-bit grey images that becomes 255."""
    parts: dict[str, Part]
    """`train` and, where the data set has one, `test`."""

    def image_name(self, part: str, place: int) -> str:
        """The path of an image, or where files hold many images its part and place."""
        return str(self.parts[part].names[place]) or f"{part} image {place}"

    @property
    def fingerprint(self) -> str:
        """Digest of all rows, 16 hexadecimal digits."""
        digest = hashlib.sha256(repr((self.class_names, self.channels, self.white)).encode())
        for name, part in self.parts.items():
            digest.update(name.encode())
            for column in vars(part).values():
                digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class HeldOut:
    """A data set whose images are assigned to splits."""

    index: Index
    splits: dict[str, np.ndarray]
    """Part -> index into `protocol.SPLITS` or `UNUSED`, int8, shape (N,)."""
    repeated: list[tuple[str, str]] = field(default_factory=list)
    """Images that are left out of `test` because an image with the same content is trained on:
    both, as `Index.image_name` gives them."""

    def save(self, folder: str) -> str:
        """Writes index and splits into `folder`, under a name that follows from the content.

        Returns:
            The path of the file. A whole file that is there already is left as it is.
        """
        arrays: dict[str, Any] = {"class_names": np.array(self.index.class_names)}
        arrays["values"] = np.array([self.index.channels, self.index.white])
        for name, part in self.index.parts.items():
            columns = {**vars(part), "splits": self.splits[name]}
            arrays |= {f"{name}/{column}": values for column, values in columns.items()}
        digest = hashlib.sha256(self.index.fingerprint.encode())
        for splits in self.splits.values():
            digest.update(splits.tobytes())
        path = Path(folder, f"{digest.hexdigest()[:16]}.npz")
        if not _is_whole(path):
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, buffer.getvalue())
        return str(path)

    @classmethod
    def load(cls, path: str) -> "HeldOut":
        """Reads what `save` has written."""
        columns: dict[str, dict[str, np.ndarray]] = {}
        with np.load(path, allow_pickle=False) as arrays:
            class_names = tuple(map(str, arrays["class_names"]))
            channels, white = map(int, arrays["values"])
            for name in arrays.files:
                part, separator, column = name.partition("/")
                if separator:
                    columns.setdefault(part, {})[column] = arrays[name]
        splits = {part: found.pop("splits") for part, found in columns.items()}
        parts = {part: Part(**found) for part, found in columns.items()}
        return cls(Index(class_names, channels, white, parts), splits)


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
