import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.data import sources
from components.data.example_gen.executor import ReadShard, Shard
from components.data.examples import load_digests
from components.data.protocol import SPLITS, Classes, hold_out
from components.data.splits import load_splits
from models.errors import UserError

PROTOCOL = {
    "split_seed": 3,
    "eval_fraction": 0.1,
    "calibration_fraction": 0.2,
    "test_fraction": 0.2,
}


def loaded(source, anomaly, protocol, *arguments, **options):
    held_out = hold_out(source.index(), anomaly, **protocol)
    classes = Classes(source.class_names, anomaly)
    return load_splits(source, classes, held_out, *arguments, **options)


def test_the_splits_are_those_of_the_protocol():
    source = sources.get("digits")
    splits = loaded(source, (3, 9), PROTOCOL, (8, 8))
    labels = source.labels()["train"]
    assignment = hold_out(source.index(), (3, 9), **PROTOCOL).splits["train"]
    everything = list(source.read("train", 0, len(labels)))
    for index, name in enumerate(SPLITS):
        places = np.flatnonzero(assignment == index)
        split = splits[name]
        np.testing.assert_array_equal(split.images, [everything[place] for place in places])
        assert split.ids.tolist() == [f"train-{place:08d}" for place in places]
        assert split.texts.tolist() == [source.class_names[k] for k in labels[places]]
    normal = [name for name in source.class_names if name not in ("3", "9")]
    for split in splits.values():
        for label, text in zip(split.labels, split.texts, strict=True):
            assert (normal[label] if label >= 0 else "anomaly") == (
                text if text in normal else "anomaly"
            )
    assert (splits["train"].labels >= 0).all()
    assert (splits["test"].labels < 0).mean() == 0.5


def test_examples_have_the_digests_of_the_content(tmp_path):
    source = sources.get("digits")
    part = source.index().parts["train"]
    columns = (part.labels, np.zeros_like(part.labels), part.digests, part.names)
    shard = Shard("train", 7, *(column[7:20] for column in columns))
    reader = ReadShard(source, Classes(source.class_names, (9,)), (8, 8))
    (tmp_path / "Split-train").mkdir()
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(tmp_path / "Split-train" / "data.gz"), options) as writer:
        for tagged in reversed(list(reader.process(shard))):
            writer.write(tagged.value.SerializeToString())
    expected = [digest.tobytes().hex() for digest in part.digests[7:20]]
    assert load_digests(str(tmp_path), "train") == expected


def test_a_test_split_that_is_not_balanced_keeps_all():
    source = sources.get("digits")
    test = loaded(source, (9,), PROTOCOL | {"balanced": False}, (8, 8))["test"]
    labels = source.labels()["train"]
    assert (test.labels < 0).sum() == (labels == 9).sum()
    assert (test.labels >= 0).mean() == pytest.approx(0.64, abs=0.05)  # 324 of 504


def test_images_are_resized_and_undecodable_ones_counted(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for index in range(20):
            pixels = generator.integers(0, 256, (9 + index % 3, 11, 3), dtype="uint8")
            Image.fromarray(pixels).save(tmp_path / name / f"{index:02d}.png")
    whole = (tmp_path / "a" / "03.png").read_bytes()
    (tmp_path / "a" / "03.png").write_bytes(whole[: len(whole) // 2])
    source = sources.get("images", str(tmp_path))
    with pytest.raises(UserError, match=r"1 images cannot be read.*03\.png"):
        loaded(source, (2,), PROTOCOL, (6, 6))
    splits = loaded(source, (2,), PROTOCOL, (6, 6), max_unreadable=1)
    assert all(split.images.shape[1:] == (6, 6, 3) for split in splits.values())
    everywhere = np.concatenate([split.ids for split in splits.values()])
    assert "train-00000003" not in everywhere
    assert len(set(everywhere)) == len(everywhere)
