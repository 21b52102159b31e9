import hashlib

import pytest
import tensorflow as tf

from components.data import examples


def _write_split(folder, images, labels, split="train", reverse=False):
    path = folder / f"Split-{split}"
    path.mkdir(parents=True)
    records = [
        examples.make_example(
            image,
            label,
            f"class {label}",
            ["a"],
            f"train-{i:08d}",
            digest=hashlib.sha256(image.tobytes()).hexdigest(),
        )
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    for shard, part in enumerate((records[::2], records[1::2])):
        options = tf.io.TFRecordOptions(compression_type="GZIP")
        with tf.io.TFRecordWriter(str(path / f"data-{shard}.gz"), options) as writer:
            for record in reversed(part) if reverse else part:
                writer.write(record.SerializeToString())


@pytest.fixture(scope="session")
def write_split():
    return _write_split
