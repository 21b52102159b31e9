"""From image files to scores, a batch at a time."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from components.data import folder
from components.serving.clients.base import Client, Refused

BATCH_SIZE = 32


@dataclass(frozen=True)
class Scored:
    """Images that were scored together."""

    names: Sequence[str]
    """Names of the images, such as their paths."""
    outputs: dict[str, np.ndarray]
    """Name of the output -> array whose first axis is that of `names`."""


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be read or decoded."""

    name: str
    reason: str


def find_images(paths: Iterable[str]) -> Iterator[str]:
    """Gives files as they are, and of folders all images below them, in order of name."""
    for path in paths:
        if os.path.isdir(path):
            yield from filter(folder.is_image, folder.walk(path))
        else:
            yield path


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
            yield from score_batch(client, read, images)


def score_batch(
    client: Client, names: Sequence[str], images: Sequence[bytes]
) -> Iterator[Scored | Unreadable]:
    """Scores encoded images; finds one that cannot be decoded by halving the batch.

    A model refuses a whole batch for one such image.

    Args:
        client: what scores.
        names: names of the images.
        images: encoded images.

    Raises:
        UserError: as the client does.
    """
    try:
        yield Scored(names, client.score(images))
    except Refused as error:
        if len(names) == 1:
            yield Unreadable(names[0], str(error))
            return
        half = len(names) // 2
        yield from score_batch(client, names[:half], images[:half])
        yield from score_batch(client, names[half:], images[half:])
