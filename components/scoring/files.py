"""From image files to scores, a batch at a time."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from components.scoring.base import Client, Refused

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp")
BATCH_SIZE = 32


@dataclass(frozen=True)
class Scored:
    """Images that were scored together."""

    paths: Sequence[str]
    outputs: dict[str, np.ndarray]
    """Name -> array whose first axis is that of `paths`."""


@dataclass(frozen=True)
class Unreadable:
    """A file that cannot be read or is no image."""

    path: str
    reason: str


def find_images(paths: Iterable[str]) -> Iterator[str]:
    """Files as they are given; of folders all images below, by suffix and in order of name.

    What is hidden (`.name`) is left out.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                    yield os.path.join(folder, name)


def score_files(client: Client, paths: Iterable[str]) -> Iterator[Scored | Unreadable]:
    """Scores image files in their order, with at most a batch of them in memory.

    Raises:
        UserError: as the client does.
    """
    paths = iter(paths)
    while batch := list(itertools.islice(paths, BATCH_SIZE)):
        read, images = [], []
        for path in batch:
            try:
                with open(path, "rb") as file:
                    images.append(file.read())
                read.append(path)
            except OSError as error:
                yield Unreadable(path, error.strerror)
        if images:
            yield from _score(client, read, images)


def _score(client, paths, images) -> Iterator[Scored | Unreadable]:
    """One bad image spoils a request, so it is found by halving."""
    try:
        yield Scored(paths, client.score(images))
    except Refused as error:
        if len(paths) == 1:
            yield Unreadable(paths[0], str(error))
            return
        half = len(paths) // 2
        yield from _score(client, paths[:half], images[:half])
        yield from _score(client, paths[half:], images[half:])
