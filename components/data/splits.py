"""The four splits in memory, straight from a source."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from components.data.folder import UNREADABLE, printable
from components.data.index import HeldOut
from components.data.pixels import UnreadableImage
from components.data.protocol import SPLITS, UNUSED, Classes
from components.data.sources.base import Source
from models.errors import UserError


class Split(NamedTuple):
    """The images of one split, ordered by `ids`."""

    images: np.ndarray
    """uint8, shape (N, H, W, K)."""
    labels: np.ndarray
    """int64, shape (N,): index among the normal classes; -1 for an anomaly."""
    texts: np.ndarray
    """str, shape (N,): name of the class."""
    ids: np.ndarray
    """str, shape (N,): part of the data set, index of the image in it and name of its file."""


def identity(part: str, index: int, file_name: str) -> str:
    """Name of an image; names sort in the order of the data set.

    Args:
        part: part of the data set.
        index: place of the image in the part.
        file_name: path of the image; empty where files hold many images.
    """
    return f"{part}-{index:08d} {printable(file_name)}".rstrip()


def load_splits(
    source: Source,
    classes: Classes,
    held_out: HeldOut,
    image_size: tuple[int, int],
    max_unreadable: int = 0,
) -> dict[str, Split]:
    """Loads the images that the pipeline's Trainer gets, in the same order.

    TensorFlow is needed only for a source of image files, and for images of another size.

    Args:
        source: where the images are.
        classes: the classes and which of them are anomalies.
        held_out: class and split of each image.
        image_size: height and width to which images are resized.
        max_unreadable: largest number of images that may be skipped because they cannot be read,
            those included that were found when the data was looked at.

    Returns:
        Name of each split -> its images.

    Raises:
        UserError: if more images cannot be decoded.
    """
    names = np.array(classes.names)
    images = {
        part: _images(source, part, splits, image_size) for part, splits in held_out.splits.items()
    }
    unreadable = [image for part in images.values() for image in part[1]]
    before = source.table.counts.get(UNREADABLE, 0)
    check_unreadable(unreadable, max_unreadable, before)
    loaded = {}
    for index, split in enumerate(SPLITS):
        # No split is cut from two parts.
        (part,) = (part for part, splits in held_out.splits.items() if (splits == index).any())
        pixels, _, places = images[part]
        chosen = held_out.splits[part][places] == index
        own = held_out.index.parts[part].labels[places[chosen]]
        loaded[split] = Split(
            pixels[chosen],
            classes.labels(own),
            names[own],
            np.array(
                [
                    identity(part, place, str(held_out.index.parts[part].names[place]))
                    for place in places[chosen]
                ]
            ),
        )
    return loaded


def check_unreadable(unreadable: Sequence[str], allowed: int, before: int = 0) -> None:
    """Refuses more unreadable images than allowed, if some were found that were not known before.

    Args:
        unreadable: images, each with the reason.
        allowed: number of images that may be unreadable.
        before: number of unreadable images that were counted before.

    Raises:
        UserError: if they are too many.
    """
    if not unreadable or before + len(unreadable) <= allowed:
        return
    listed = "; ".join(unreadable[:10]) + "; ..." * (len(unreadable) > 10)
    raise UserError(
        f"{before + len(unreadable)} images cannot be read, and {allowed} are allowed: {listed}. "
        "Repair or remove them, or raise the number of images that may be unreadable.",
        "max_unreadable",
    )


def _images(
    source: Source, part: str, splits: np.ndarray, image_size: tuple[int, int]
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """The images in use, uint8 (N, *image_size, K); what can't be decoded; places in the part."""
    images = np.empty((np.sum(splits != UNUSED), *image_size, source.channels), "uint8")
    places: list[int] = []
    unreadable = []
    for place, image in enumerate(source.read(part, 0, len(splits), image_size)):
        if splits[place] == UNUSED:
            continue
        if isinstance(image, UnreadableImage):
            unreadable.append(f"{image.path}: {image.reason}")
            continue
        images[len(places)] = image
        places.append(place)
    return images[: len(places)], unreadable, np.array(places, int)
