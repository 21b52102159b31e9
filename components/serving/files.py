"""Scores image files in batches."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from components.data.batches import by_halves
from components.data.folder import ROTATED, Table, printable, read_file
from components.data.formats import MAX_PIXELS, UnreadableError, read_info, to_decodable
from components.serving.clients.base import Client, Refused

BATCH_SIZE = 32


@dataclass(frozen=True)
class Scored:
    """Images that were scored together."""

    names: Sequence[str]
    """Names of the images, such as their paths."""
    images: Sequence[bytes]
    """Contents of the images as they were scored."""
    outputs: dict[str, np.ndarray]
    """Name of the output -> array with one value for each of `names` along the first axis."""


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be read or decoded."""

    name: str
    reason: str


def score_files(
    client: Client, paths: Iterable[str], table: Table, max_pixels: int = MAX_PIXELS
) -> Iterator[Scored | Unreadable]:
    """Scores image files in their order. At most one batch of images is in memory.

    Formats that the model does not decode, such as WebP and TIFF, become PNG first.

    Args:
        client: client that computes the scores.
        paths: paths of the files.
        table: table in which images whose EXIF data asks for a rotation are counted.
        max_pixels: largest number of pixels of an image.

    Raises:
        UserError: if the client raises it.
    """
    paths = iter(paths)
    while batch := list(itertools.islice(paths, BATCH_SIZE)):
        read: list[str] = []
        images: list[bytes] = []
        for path in batch:
            try:
                content = read_file(path)
                if read_info(content, max_pixels).is_rotated:
                    table.add(ROTATED, path)
                images.append(to_decodable(content, max_pixels))
                read.append(path)
            except OSError as error:
                yield Unreadable(printable(path), error.strerror or str(error))
            except UnreadableError as error:
                yield Unreadable(printable(path), str(error))
        if images:
            yield from score_batch(client, read, images)


def score_batch(
    client: Client, names: Sequence[str], images: Sequence[bytes]
) -> Iterator[Scored | Unreadable]:
    """Scores encoded images, and finds those that cannot be decoded.

    A model refuses a whole batch if one image cannot be decoded. The batch is then halved again
    and again until these images are found.

    Args:
        client: client that computes the scores.
        names: names of the images.
        images: encoded images.

    Raises:
        UserError: if the client raises it.
    """

    def score(places: Sequence[int]) -> dict[str, np.ndarray]:
        return client.score([images[place] for place in places])

    for places, result in by_halves(score, range(len(names)), Refused):
        if isinstance(result, Exception):
            yield Unreadable(printable(names[places[0]]), str(result))
        else:
            yield Scored([names[i] for i in places], [images[i] for i in places], result)
