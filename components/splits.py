"""The four splits in memory, straight from a source; needs neither TensorFlow nor TFX."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from components.example_gen.hold_out import SPLITS, UNUSED, hold_out
from components.sources.base import Source, UnreadableImage
from models.errors import UserError

ANOMALY_LABEL = -1


class Split(NamedTuple):
    """The images of one split, ordered by `ids`."""

    images: np.ndarray
    """uint8, shape (N, H, W, K)."""
    labels: np.ndarray
    """int64, shape (N,): index among the normal classes; -1 for an anomaly."""
    texts: np.ndarray
    """str, shape (N,): name of the class."""
    ids: np.ndarray
    """str, shape (N,): part of the data set and index in it."""


def identity(part: str, index: int) -> str:
    """Name of an image; sorts in the data set's order."""
    return f"{part}-{index:08d}"


def load_splits(
    source: Source,
    anomaly: Sequence[int],
    protocol: Mapping[str, Any],
    image_size: tuple[int, int],
    max_unreadable: int = 0,
) -> dict[str, Split]:
    """Name of each split -> its images: those, in that order, that the pipeline's Trainer gets.

    Args:
        source: where the images are.
        anomaly: indices of the anomalous classes.
        protocol: keyword arguments of `hold_out`.
        image_size: height and width to which images are resized.
        max_unreadable: images that may be skipped because they cannot be decoded.

    Raises:
        UserError: if more images cannot be decoded, or the data does not fit the protocol.
    """
    names = np.array(source.class_names)
    normal = np.setdiff1d(np.arange(len(names)), anomaly)
    index_among_normal = np.full(len(names), ANOMALY_LABEL)
    index_among_normal[normal] = np.arange(len(normal))
    labels = source.labels()
    assignment = hold_out(labels, source.class_names, anomaly, **protocol)

    images = {part: _images(source, part, assignment[part], image_size) for part in labels}
    unreadable = [image for part in images.values() for image in part[1]]
    if len(unreadable) > max_unreadable:
        raise UserError(unreadable_message(unreadable, max_unreadable))
    splits = {}
    for index, split in enumerate(SPLITS):
        # No split is cut from two parts.
        (part,) = (part for part in labels if (assignment[part] == index).any())
        pixels, _, places = images[part]
        chosen = assignment[part][places] == index
        own = labels[part][places[chosen]]
        splits[split] = Split(
            pixels[chosen],
            index_among_normal[own],
            names[own],
            np.array([identity(part, place) for place in places[chosen]]),
        )
    return splits


def unreadable_message(unreadable: Sequence[str], allowed: int) -> str:
    """What is said when images, `path: reason`, cannot be decoded and are more than `allowed`."""
    listed = "; ".join(unreadable[:10]) + "; ..." * (len(unreadable) > 10)
    return (
        f"{len(unreadable)} images cannot be decoded, more than the {allowed} that "
        f"--max-unreadable allows: {listed}. Repair or remove them, or raise the limit."
    )


def _images(source, part, assignment, image_size):
    """The images in use, uint8 (N, *image_size, K); what can't be decoded; places in the part."""
    images = np.empty((np.sum(assignment != UNUSED), *image_size, source.channels), "uint8")
    places, unreadable = [], []
    for place, image in enumerate(source.read(part, 0, len(assignment))):
        if assignment[place] == UNUSED:
            continue
        if isinstance(image, UnreadableImage):
            unreadable.append(f"{image.path}: {image.reason}")
            continue
        images[len(places)] = _resized(image, image_size)
        places.append(place)
    return images[: len(places)], unreadable, np.array(places, int)


def _resized(image, image_size):
    if image.shape[:2] == tuple(image_size):
        return image
    import keras  # here, for it takes seconds

    from models.layers import resize_images

    return keras.ops.convert_to_numpy(resize_images(image, image_size))
