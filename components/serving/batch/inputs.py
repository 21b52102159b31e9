"""Finds the images, manifests and TFRecords that are scored.

Beam is imported only for files that are not on this machine, because the import takes seconds.
"""

import csv
import hashlib
import io
import itertools
import json
import os
import threading
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple, TextIO

from components.data.folder import UNREADABLE, Table, walk
from components.data.formats import looks_like_image
from models.errors import UserError

_MANIFESTS = (".txt", ".csv")
_REACHABLE_SECONDS = 20
# Number of images in each unit of parallel work.
SHARD_SIZE = 64


class Shard(NamedTuple):
    """A unit of parallel work: some images, or one file of TFRecords."""

    folder: str
    """Folder in which relative `names` are looked up."""
    names: tuple[str, ...]
    """Paths of the files."""
    are_images: bool
    """Whether the files are images. Otherwise they are TFRecords."""

    def path(self, name: str) -> str:
        """Returns the path or URI of the file with this name."""
        return name if "://" in name else os.path.join(self.folder, name)


def absolute(path: str) -> str:
    """Makes a path absolute, because workers may have another working directory."""
    return path if "://" in path else os.path.abspath(path)


def resolve(name: str) -> str:
    """Returns the absolute path of an input.

    Raises:
        UserError: if there is no such input, or if a CSV manifest cannot be read or has no column
            `path`.
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


def _reachable(lines: Iterable[str], table: Table) -> Iterator[str]:
    """Lines of a manifest, but those in a store that cannot be reached; these are unreadable.

    Without a network, a library would try again and again for minutes to read each of them.
    """
    stores: dict[str, str] = {}
    for line in lines:
        if "://" in line:
            scheme, _, rest = line.partition("://")
            store = f"{scheme}://{rest.split('/')[0]}"
            if store not in stores:
                stores[store] = _why_not_reachable(line)
            if stores[store]:
                table.add(UNREADABLE, f"{line} ({stores[store]})")
                continue
        yield line


def _why_not_reachable(line: str) -> str:
    """Empty, or why the store of a URI does not answer in time."""
    outcome: list[str] = []
    thread = threading.Thread(target=_try_to_match, args=(line, outcome), daemon=True)
    thread.start()
    thread.join(_REACHABLE_SECONDS)
    return outcome[0] if outcome else f"its store did not answer within {_REACHABLE_SECONDS} s"


def _try_to_match(line: str, outcome: list[str]) -> None:
    try:
        next(_matched(line), None)
    except Exception as error:  # Each file system has its own errors.
        outcome.append(" ".join(str(error).split())[:200] or type(error).__name__)
    else:
        outcome.append("")


def shards(path: str, table: Table) -> Iterator[Shard]:
    """Divides a resolved input into shards.

    * A folder gives the images in it, at any depth.
    * A manifest gives the images that it lists, whose paths are relative to the manifest. `.txt`
      has one path in each line, and `.csv` has the paths in the column `path`.
    * Any other file, or each file that matches a glob, is an image if it has the name of an image.
      Otherwise it is a file of TFRecords.

    Args:
        path: path or glob of the input.
        table: table in which the files of a folder that are left out are counted.

    Raises:
        OSError: if a manifest cannot be read.
        ValueError: if a manifest is not a text.
    """
    if path.endswith(_MANIFESTS):
        yield from _image_shards(os.path.dirname(path), _reachable(_listed(path), table))
    elif os.path.isdir(path):
        yield from _image_shards("", walk(path, table))
    else:
        images = []
        for file, *_ in _files(path):
            if looks_like_image(file, b""):
                images.append(file)
            else:
                yield Shard("", (file,), are_images=False)
        yield from _image_shards("", images)


def fingerprint(path: str) -> str:
    """Computes a digest of names, sizes and times of the files of a resolved input.

    For a manifest, this is the file of the manifest itself, and not the images that it lists.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(json.dumps(file).encode())
    return digest.hexdigest()[:16]


def _files(path: str) -> Iterator[tuple[str, int, float]]:
    """Yields path, size and time of one file, or of all visible files in a folder or glob."""
    if not os.path.exists(path):
        yield from _matched(path)
    elif os.path.isdir(path):
        yield from map(_local, walk(path, Table()))
    else:
        yield _local(path)


def _local(path: str) -> tuple[str, int, float]:
    # A link is not followed, so that a broken link is reported only when its image is read.
    status = os.stat(path, follow_symlinks=False)
    return path, status.st_size, status.st_mtime


def _matched(pattern: str) -> Iterator[tuple[str, int, float]]:
    from apache_beam.io.filesystems import FileSystems

    try:
        (matches,) = FileSystems.match([pattern])
    except ValueError as error:
        raise UserError(f"There is no file system for the input {pattern}: {error}") from error
    for file in sorted(matches.metadata_list, key=lambda file: file.path):
        yield file.path, file.size_in_bytes, file.last_updated_in_seconds


def open_file(path: str) -> BinaryIO:
    """Opens a file on this machine, or in another file system that Beam knows.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if Beam knows no file system for it.
    """
    if "://" not in path:
        return open(path, "rb")  # noqa: SIM115
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


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
