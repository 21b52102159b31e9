"""The tf.train.Examples that travel through the pipeline: how they are written and read."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from components.splits import ANOMALY_LABEL, Split

ENCODED = "image/encoded"
HEIGHT = "image/height"
WIDTH = "image/width"
CHANNELS = "image/channels"
LABEL = "image/class/label"
TEXT = "image/class/text"
IS_ANOMALY = "is_anomaly"
CONTRAST = "contrast"
ID = "id"


def make_example(
    image: np.ndarray, label: int, text: str, contrast: list[str], identity: str
) -> tf.train.Example:
    """One image as an Example, losslessly encoded as PNG.

    Args:
        image: uint8, shape (H, W, K), K = 1 or 3.
        label: index among the normal classes; -1 for an anomaly.
        text: name of the image's own class.
        contrast: names of the normal classes that it is compared with: its own, or for an anomaly
            all of them.
        identity: part of the data set and index in it; sorts in the data set's order.
    """
    height, width, channels = image.shape
    buffer = io.BytesIO()
    # Level 1: a fifth of the default's time for a few per cent more bytes.
    Image.fromarray(image[..., 0] if channels == 1 else image).save(buffer, "png", compress_level=1)
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                ENCODED: _bytes([buffer.getvalue()]),
                HEIGHT: _int(height),
                WIDTH: _int(width),
                CHANNELS: _int(channels),
                LABEL: _int(label),
                TEXT: _bytes([text.encode()]),
                IS_ANOMALY: _int(int(label == ANOMALY_LABEL)),
                CONTRAST: _bytes([name.encode() for name in contrast]),
                ID: _bytes([identity.encode()]),
            }
        )
    )


def decode_image(encoded: tf.Tensor, image_size: tuple[int, int], channels: int) -> tf.Tensor:
    """Decodes one PNG, JPEG, GIF or BMP, resized to `image_size`.

    Returns:
        uint8 tensor, shape (*image_size, channels).
    """
    # Deferred: Keras need not load where examples are only written.
    from models.layers import resize_images

    image = tf.io.decode_image(encoded, channels, expand_animations=False)
    image.set_shape((None, None, channels))
    resized = tf.ensure_shape(resize_images(image, image_size), (*image_size, channels))
    return tf.cast(resized, tf.uint8)


def load_split(uri: str, split: str, image_size: tuple[int, int]) -> Split:
    """Loads a split into memory, as uint8 at the network's size, in the order of the ids.

    Beam writes Examples in any order; sorting makes training depend on the seed alone.

    Args:
        uri: folder of the Examples artifact.
        split: one of its splits.
        image_size: height and width to which images are resized.
    """
    files = tf.io.gfile.glob(f"{uri}/Split-{split}/*")
    spec = {
        ENCODED: tf.io.FixedLenFeature([], tf.string),
        CHANNELS: tf.io.FixedLenFeature([], tf.int64),
        LABEL: tf.io.FixedLenFeature([], tf.int64),
        TEXT: tf.io.FixedLenFeature([], tf.string),
        ID: tf.io.FixedLenFeature([], tf.string),
    }
    records = tf.data.TFRecordDataset(sorted(files), compression_type="GZIP")
    first = next(iter(records.take(1)), None)
    if first is None:
        return Split(
            np.zeros((0, *image_size, 1), "uint8"), *(np.zeros(0, t) for t in ("int64", "U", "U"))
        )
    channels = int(tf.io.parse_single_example(first, spec)[CHANNELS])

    def parse(serialized):
        example = tf.io.parse_single_example(serialized, spec)
        return decode_image(example[ENCODED], image_size, channels), *(
            example[key] for key in (LABEL, TEXT, ID)
        )

    batches = records.map(parse, tf.data.AUTOTUNE).batch(1000).as_numpy_iterator()
    images, labels, texts, ids = map(np.concatenate, zip(*batches, strict=True))
    order = np.argsort(ids)
    return Split(images[order], labels[order], texts[order].astype("U"), ids[order].astype("U"))


def _int(value):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _bytes(values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
