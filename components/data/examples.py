"""The tf.train.Examples that travel through the pipeline: how they are written and read."""

import io
from collections.abc import Collection, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from components.data.protocol import ANOMALY_LABEL
from components.data.splits import Split

ENCODED = "image/encoded"
HEIGHT = "image/height"
WIDTH = "image/width"
CHANNELS = "image/channels"
LABEL = "image/class/label"
TEXT = "image/class/text"
IS_ANOMALY = "is_anomaly"
CONTRAST = "contrast"
ID = "id"
DIGEST = "digest"
MASK = "mask"
UNREADABLE_FILE = "unreadable.json"
"""Beside the splits: JSON, a list of the images that could not be decoded, with reasons."""
SEEN_FILE = "seen.json"
"""Beside a model: JSON, names of the `anomaly` classes that were held out, and digests of the
`images` that it was trained, watched or calibrated on."""


def make_example(
    image: np.ndarray,
    label: int,
    text: str,
    normal_classes: Sequence[str],
    identity: str,
    digest: str = "",
    mask: np.ndarray | None = None,
) -> tf.train.Example:
    """One image as an Example, losslessly encoded as PNG.

    Args:
        image: uint8, shape (H, W, K), K = 1 or 3.
        label: index among the normal classes; -1 for an anomaly.
        text: name of the image's own class.
        normal_classes: names of all normal classes. The Example lists those that the image is
            compared with: its own, or all of them for an anomaly.
        identity: name of the image; names sort in the order of the data set.
        digest: of the content that the image was made of, hexadecimal.
        mask: where the image is anomalous, bool, shape (H, W).
    """
    height, width, channels = image.shape
    contrast = normal_classes if label == ANOMALY_LABEL else [text]
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                ENCODED: _bytes([_png(image[..., 0] if channels == 1 else image)]),
                HEIGHT: _int(height),
                WIDTH: _int(width),
                CHANNELS: _int(channels),
                LABEL: _int(label),
                TEXT: _bytes([text.encode()]),
                IS_ANOMALY: _int(int(label == ANOMALY_LABEL)),
                CONTRAST: _bytes([name.encode() for name in contrast]),
                ID: _bytes([identity.encode()]),
                DIGEST: _bytes([digest.encode()]),
                MASK: _bytes([] if mask is None else [_png(mask)]),
            }
        )
    )


def load_split(
    uri: str, split: str, image_size: tuple[int, int], ids: Collection[str] | None = None
) -> Split:
    """Loads a split into memory, as uint8, in the order of the ids.

    Beam writes Examples in any order; after sorting, training depends only on the seed.

    Args:
        uri: folder of the Examples artifact.
        split: name of one of its splits.
        image_size: height and width of the images, which were resized when they were written.
        ids: ids of the images that are loaded. `None` loads all.
    """
    spec = {
        ENCODED: tf.io.FixedLenFeature([], tf.string),
        CHANNELS: tf.io.FixedLenFeature([], tf.int64),
        LABEL: tf.io.FixedLenFeature([], tf.int64),
        TEXT: tf.io.FixedLenFeature([], tf.string),
        ID: tf.io.FixedLenFeature([], tf.string),
    }
    records = _records(uri, split)
    if ids is not None:
        wanted = tf.constant(sorted(ids), tf.string)
        records = records.filter(
            lambda record: tf.reduce_any(tf.io.parse_single_example(record, spec)[ID] == wanted)
        )
    first = next(iter(records.take(1)), None)
    if first is None:
        return Split(
            np.zeros((0, *image_size, 1), "uint8"), *(np.zeros(0, t) for t in ("int64", "U", "U"))
        )
    channels = int(tf.io.parse_single_example(first, spec)[CHANNELS])

    def parse(serialized):
        example = tf.io.parse_single_example(serialized, spec)
        image = tf.io.decode_png(example[ENCODED], channels)
        return tf.ensure_shape(image, (*image_size, channels)), *(
            example[key] for key in (LABEL, TEXT, ID)
        )

    batches = records.map(parse, tf.data.AUTOTUNE).batch(1000).as_numpy_iterator()
    images, labels, texts, ids = map(np.concatenate, zip(*batches, strict=True))
    order = np.argsort(ids)
    texts, ids = (np.array([text.decode() for text in values]) for values in (texts, ids))
    return Split(images[order], labels[order], texts[order], ids[order])


def load_masks(uri: str, split: str) -> list[np.ndarray | None]:
    """Loads the masks of a split's images, bool (H, W) each, in the order of the ids.

    Args:
        uri: folder of the Examples artifact.
        split: name of one of its splits.
    """
    spec = {ID: tf.io.FixedLenFeature([], tf.string), MASK: tf.io.VarLenFeature(tf.string)}
    found: dict[bytes, np.ndarray | None] = {}
    for record in _records(uri, split):
        example = tf.io.parse_single_example(record, spec)
        encoded = example[MASK].values.numpy()
        mask = np.asarray(Image.open(io.BytesIO(encoded[0]))) > 0 if len(encoded) else None
        found[example[ID].numpy()] = mask
    return [found[key] for key in sorted(found)]


def load_digests(uri: str, split: str) -> list[str]:
    """Loads the digests of a split's images, in the order of the ids.

    Args:
        uri: folder of the Examples artifact.
        split: name of one of its splits.
    """
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in (ID, DIGEST)}
    found: dict[bytes, bytes] = {}
    for records in _records(uri, split).batch(1000):
        batch = tf.io.parse_example(records, spec)
        found |= zip(batch[ID].numpy(), batch[DIGEST].numpy(), strict=True)
    return [found[key].decode() for key in sorted(found)]


def _records(uri: str, split: str) -> tf.data.Dataset:
    """The serialised Examples of a split, in the order of their files."""
    files = tf.io.gfile.glob(f"{uri}/Split-{split}/*")
    return tf.data.TFRecordDataset(sorted(files), compression_type="GZIP")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # Level 1 takes a fifth of the default's time and a few per cent more bytes.
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _int(value):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _bytes(values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
