"""What is scored: images, manifests of images and TFRecords, found by their names.

Beam takes seconds to import, so it is imported only for files that are not on this machine.
"""

import csv
import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple, TextIO

from components.data.folder import is_image, walk
from models.errors import UserError

_MANIFESTS = (".txt", ".csv")
# Images read by one worker at a time: the unit of parallelism.
SHARD_SIZE = 64


class Shard(NamedTuple):
    """What one worker reads at a time: some images, or one file of TFRecords."""

    folder: str
    """Folder of those `names` that are relative paths."""
    names: tuple[str, ...]
    """Paths of the files."""
    are_images: bool

    def path(self, name: str) -> str:
        """Where a name's file lies."""
        return name if "://" in name else os.path.join(self.folder, name)


def absolute(path: str) -> str:
    """A path that holds for workers too, whose working directory may be another."""
    return path if "://" in path else os.path.abspath(path)


def resolve(name: str) -> str:
    """The input's absolute path.

    Raises:
        UserError: if there is nothing of that name, or a CSV manifest cannot be read or has no
            column `path`.
    """
    path = absolute(name)
    if not os.path.exists(path) and next(_matched(path), None) is None:
        raise UserError(f"The input {name} does not exist.")
    if path.endswith(".csv"):
        try:
            with _open_text(path) as file:
                columns = csv.DictReader(file).fieldnames or ()
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"Cannot read the manifest {name}: {error}") from error
        if "path" not in columns:
            raise UserError(f"The manifest {name} has no column `path` in its first line.")
    return path


def shards(path: str) -> Iterator[Shard]:
    """What a resolved input consists of.

    * a folder: the images in it, at any depth;
    * a manifest, `.txt` or `.csv`: the images it lists, a path a line or in the column `path`,
      relative to the manifest;
    * any other file or glob: an image if it is so named, else TFRecords.

    Raises:
        OSError: if a manifest cannot be read.
        ValueError: if it is not a text.
    """
    if path.endswith(_MANIFESTS):
        yield from _image_shards(os.path.dirname(path), _listed(path))
    elif os.path.isdir(path):
        yield from _image_shards("", (file for file, *_ in _files(path) if is_image(file)))
    else:
        images = []
        for file, *_ in _files(path):
            if is_image(file):
                images.append(file)
            else:
                yield Shard("", (file,), are_images=False)
        yield from _image_shards("", images)


def fingerprint(path: str) -> str:
    """Digest of names, sizes and times of a resolved input's files, 16 hexadecimal digits.

    For a manifest only the manifest itself counts, not the images that it lists.
    """
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(json.dumps(file).encode())
    return digest.hexdigest()[:16]


def _files(path: str) -> Iterator[tuple[str, int, float]]:
    """Path, size and time of one file, or of all visible files in a folder or of a glob."""
    if not os.path.exists(path):
        yield from _matched(path)
    elif os.path.isdir(path):
        yield from map(_local, walk(path))
    else:
        yield _local(path)


def _local(path):
    status = os.stat(path, follow_symlinks=False)  # A broken link is found when it is read.
    return path, status.st_size, status.st_mtime


def _matched(pattern):
    from apache_beam.io.filesystems import FileSystems

    try:
        (matches,) = FileSystems.match([pattern])
    except ValueError as error:
        raise UserError(f"There is no file system for the input {pattern}: {error}") from error
    for file in sorted(matches.metadata_list, key=lambda file: file.path):
        yield file.path, file.size_in_bytes, file.last_updated_in_seconds


def open_file(path: str) -> BinaryIO:
    """Opens a file on this machine, or one in a file system that Beam knows.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if Beam knows no file system for it.
    """
    if "://" not in path:
        return open(path, "rb")  # noqa: SIM115
    from apache_beam.io.filesystems import FileSystems

    return FileSystems.open(path)


def _image_shards(folder: str, names: Iterable[str]) -> Iterator[Shard]:
    names = iter(names)
    while chunk := tuple(itertools.islice(names, SHARD_SIZE)):
        yield Shard(folder, chunk, are_images=True)


def _listed(manifest: str) -> Iterator[str]:
    with _open_text(manifest) as file:
        lines = (row["path"] for row in csv.DictReader(file)) if manifest.endswith(".csv") else file
        yield from (line.strip() for line in lines if line and line.strip())


def _open_text(path: str) -> TextIO:
    return io.TextIOWrapper(open_file(path), "utf-8-sig", newline="")
