"""The one walk over folders of images, for training and for scoring alike.

Nothing disappears in it: what is left out is counted, with the first names.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.data.formats import is_image, looks_like_image

READ = "read"
HIDDEN = "ignored, because hidden"
OTHER = "ignored, because no image"
BESIDE = "ignored, because not in a class folder"
UNREADABLE = "unreadable"
ROTATED = "read as stored, though an EXIF note asks for a rotation"
DEEP_COLOUR = "read with the upper 8 of their 16 bits of colour"
_NAMES = 5
_START = 16  # bytes that tell a format


@dataclass
class Table:
    """What became of files: for each kind of outcome a count and the first names."""

    root: str | None = None
    """Folder that names are shown relative to; `None`: they are shown as they are."""
    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, outcome: str, name: str, count: int = 1) -> None:
        """Counts a file, or several under one name."""
        self.counts[outcome] = self.counts.get(outcome, 0) + count
        listed = self.names.setdefault(outcome, [])
        if outcome == UNREADABLE or (outcome != READ and len(listed) < _NAMES):
            listed.append(printable(name.removeprefix(f"{self.root}/") if self.root else name))

    def lines(self) -> list[str]:
        """A line for each outcome other than `READ`, with the count and the first names."""
        found = []
        for outcome, count in self.counts.items():
            if outcome != READ:
                names = self.names[outcome][:_NAMES]
                more = ", ..." if count > len(names) else ""
                files = "file" if count == 1 else "files"
                found.append(f"{count} {files} {outcome}: {', '.join(names)}{more}")
        return found


def printable(name: str) -> str:
    """A file's name as text, which it need not be."""
    return os.fsencode(name).decode(errors="backslashreplace")


def walk(folder: str, table: Table) -> Iterator[str]:
    """Paths of the images in a folder and below it, in order of name.

    An image is told by its suffix or by its content. Links to files and folders are followed.
    Everything else is counted in `table`.

    Args:
        folder: path of the folder.
        table: where what is left out is counted, under its path.
    """
    yield from _walk(folder, table, (os.path.realpath(folder),))


def find_images(paths: Sequence[str], table: Table) -> Iterator[str]:
    """Gives files as they are, and of folders all images in and below them, in order of name."""
    for path in paths:
        if os.path.isdir(path):
            yield from walk(path, table)
        else:
            yield path


def is_folder(entry: os.DirEntry) -> bool:
    """Whether this is a folder, or a link to one that can be followed."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def read_file(path: str) -> bytes:
    """The content of a file.

    Raises:
        OSError: if it cannot be read.
    """
    return Path(path).read_bytes()


def _walk(folder: str, table: Table, parents: tuple[str, ...]) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        table.add(UNREADABLE, f"{folder}/ ({error.strerror})")
        return
    for entry in (entry for entry in entries if not is_folder(entry)):
        if entry.name.startswith("."):
            table.add(HIDDEN, entry.path)
        elif _is_image(entry.path, entry.name, table):
            yield entry.path
    for entry in (entry for entry in entries if is_folder(entry)):
        real = os.path.realpath(entry.path)
        if entry.name.startswith("."):
            table.add(HIDDEN, f"{entry.path}/")
        elif not any(f"{parent}/".startswith(os.path.join(real, "")) for parent in parents):
            # Only a link leads back up, and would lead round in circles.
            yield from _walk(entry.path, table, (*parents, real))


def _is_image(path: str, name: str, table: Table) -> bool:
    if looks_like_image(name, b""):
        return True
    try:
        with open(path, "rb") as file:
            if is_image(file.read(_START)):
                return True
    except OSError as error:
        table.add(UNREADABLE, f"{path} ({error.strerror})")
        return False
    table.add(OTHER, path)
    return False
