"""From images as they are stored to pixels of one size."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.data.batches import by_halves

_BATCH_SIZE = 64
_BATCH_BYTES = 1 << 24


@dataclass(frozen=True)
class UnreadableImage:
    """Stands for an image that cannot be read."""

    path: str
    reason: str


@dataclass(frozen=True)
class EncodedImage:
    """The content of an image file that the decoder reads."""

    path: str
    content: bytes


Stored = np.ndarray | EncodedImage | UnreadableImage


def to_pixels(
    images: Iterable[Stored], image_size: tuple[int, int] | None, channels: int, white: int
) -> Iterator[np.ndarray | UnreadableImage]:
    """Decodes and resizes images, as the exported model does it.

    TensorFlow is loaded only if there is something to decode or to resize.

    Args:
        images: arrays, uint8 (H, W, channels), contents of files, or what cannot be read.
        image_size: height and width of the result; `None`: those of each image.
        channels: 1 or 3.
        white: grey value of 16-bit grey images that becomes 255.

    Yields:
        uint8 array, shape (*image_size, channels), or what stands for an image that cannot be
        decoded, in the order of `images`.
    """
    for kind, run in itertools.groupby(images, _kind):
        if kind is EncodedImage:
            yield from _decode(run, image_size, channels, white)  # type: ignore[arg-type]
        elif kind is UnreadableImage or image_size in (None, kind):
            yield from run  # type: ignore[misc]
        else:
            yield from _resize(run, image_size)  # type: ignore[arg-type]


def decoder_reason(message: str) -> str:
    """What an error of TensorFlow says, without where in its graph that happened."""
    message = message.partition("\n\t [[")[0].partition("\nStack trace")[0]
    lines = [line for line in message.splitlines() if line.strip()]
    line = lines[-1] if lines else message
    if "assertion failed: [" in message:
        line = message.partition("assertion failed: [")[2].partition("]")[0]
    while "{{" in line:
        line = line.partition("{{")[0] + line.partition("}}")[2]
    return line.strip()[:300]


def _kind(image: Stored) -> Any:
    """Images of one kind are treated together: an array's kind is its size."""
    return image.shape[:2] if isinstance(image, np.ndarray) else type(image)


def _decode(
    images: Iterable[EncodedImage], image_size: tuple[int, int] | None, channels: int, white: int
) -> Iterator[np.ndarray | UnreadableImage]:
    import tensorflow as tf  # Imported here, because TensorFlow takes seconds to load.

    from components.data.decode import batch_decoder, decode

    def decoded(batch: Sequence[EncodedImage]) -> Any:
        contents = [image.content for image in batch]
        if image_size is not None:
            return batch_decoder(image_size, channels, white)(contents).numpy()
        return [decode(content, channels, white=white).numpy() for content in contents]

    for batch in _batches(images):
        for items, result in by_halves(decoded, batch, tf.errors.InvalidArgumentError):
            if isinstance(result, Exception):
                yield UnreadableImage(items[0].path, decoder_reason(str(result)))
            else:
                yield from result


def _batches(images: Iterable[EncodedImage]) -> Iterator[list[EncodedImage]]:
    """Some images at a time, few if they are large."""
    batch: list[EncodedImage] = []
    size = 0
    for image in images:
        batch.append(image)
        size += len(image.content)
        if len(batch) == _BATCH_SIZE or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _resize(images: Iterable[np.ndarray], image_size: tuple[int, int]) -> Iterator[np.ndarray]:
    import keras  # Imported here, because Keras takes seconds to load.

    from models.images import resize_images

    images = iter(images)
    while batch := list(itertools.islice(images, _BATCH_SIZE)):
        resized = keras.ops.convert_to_numpy(resize_images(np.stack(batch), image_size))
        yield from resized.astype("uint8")
