from pathlib import Path

import numpy as np
import pytest

from components.data.index import HeldOut, Index, Part
from components.data.protocol import (
    CALIBRATION,
    EVAL,
    TEST,
    TRAIN,
    UNUSED,
    Classes,
    hold_out,
    resolve_anomaly,
)
from models.errors import UserError

NAMES = tuple("abcd")
SHARES = {"eval_fraction": 0.1, "calibration_fraction": 0.2, "test_fraction": 0.25}


def part(labels, seed=0, groups=None):
    """Images of these classes, each of another content."""
    generator = np.random.default_rng(seed)
    return Part.of(np.array(labels), [generator.bytes(32) for _ in labels], groups=groups)


def index(*sizes):
    parts = {
        name: part(np.random.default_rng(0).permutation(np.arange(size) % 4), seed)
        for seed, (name, size) in enumerate(zip(("train", "test"), sizes, strict=False))
    }
    return Index(NAMES, 1, 255, parts)


def of_labels(**labels):
    parts = {name: part(values, seed) for seed, (name, values) in enumerate(labels.items())}
    return Index(NAMES, 1, 255, parts)


def split(of, anomaly=(3,), **options):
    return hold_out(of, anomaly, **{"split_seed": 0, **SHARES, **options})


@pytest.mark.parametrize("anomaly", [(3,), (0, 2)])
@pytest.mark.parametrize("sizes", [(400, 200), (400,)])
def test_no_anomaly_outside_test_and_a_balanced_test(anomaly, sizes):
    of = index(*sizes)
    splits = split(of, anomaly).splits
    for name, values in of.parts.items():
        is_anomaly = np.isin(values.labels, anomaly)
        assert not np.isin(splits[name][is_anomaly], (TRAIN, EVAL, CALIBRATION)).any()
    tested = "test" if "test" in of.parts else "train"
    in_test = splits[tested] == TEST
    counts = [int((in_test & which).sum()) for which in (is_anomaly, ~is_anomaly)]
    assert counts[0] == counts[1] > 0


def test_splits_are_shares_of_the_normal_training_images():
    of = index(40_000, 200)
    splits = split(of).splits
    normal = splits["train"][of.parts["train"].labels != 3]
    for which, share in ((TRAIN, 0.7), (EVAL, 0.1), (CALIBRATION, 0.2)):
        assert (normal == which).mean() == pytest.approx(share, abs=0.01)
    assert set(splits["test"]) == {TEST, UNUSED}
    without = split(index(40_000)).splits["train"][index(40_000).parts["train"].labels != 3]
    for which, share in ((TRAIN, 0.45), (EVAL, 0.1), (CALIBRATION, 0.2)):
        assert (without == which).mean() == pytest.approx(share, abs=0.01)


def test_a_split_follows_from_the_content_alone():
    """Images that are added, in another order, move none of the others."""
    of = index(400)
    splits = split(of, balanced=False).splits["train"]
    assert (splits == split(of, balanced=False).splits["train"]).all()
    assert (splits != split(of, balanced=False, split_seed=1).splits["train"]).any()

    train = of.parts["train"]
    order = np.random.default_rng(5).permutation(400)
    more = part(np.arange(300) % 4, seed=9)
    grown = Part.of(
        np.r_[more.labels, train.labels[order]],
        [row.tobytes() for row in np.r_[more.digests, train.digests[order]]],
    )
    grown = split(Index(NAMES, 1, 255, {"train": grown}), balanced=False).splits["train"]
    assert (grown[300:] == splits[order]).all()


def test_equal_images_share_a_split():
    train = part([0, 1, 2] * 50 + [3] * 20)
    digests = [row.tobytes() for row in train.digests]
    copies = Part.of(np.r_[train.labels, train.labels], digests * 2)
    splits = split(Index(NAMES, 1, 255, {"train": copies}), balanced=False).splits["train"]
    assert (splits[:170] == splits[170:]).all()


def test_what_is_trained_on_is_not_tested_on():
    train, test = part([0, 1, 2] * 50), part([0, 3] * 10, seed=1)
    digests = [row.tobytes() for row in test.digests]
    for place in (0, 1, 2):  # a normal image, an anomaly, and a normal image again
        digests[place] = train.digests[place].tobytes()
    copied = Part.of(test.labels, digests, names=[f"test/{place}.png" for place in range(20)])
    held_out = split(Index(NAMES, 1, 255, {"train": train, "test": copied}), balanced=False)
    assert [name for name, _ in held_out.repeated] == ["test/0.png", "test/1.png", "test/2.png"]
    assert held_out.repeated[0][1] == "train image 0"
    assert (held_out.splits["test"][:3] == UNUSED).all()
    assert (held_out.splits["test"][3:] == TEST).all()


def test_an_anomaly_that_is_also_a_normal_image_is_not_tested_on():
    train = part([0, 1, 2] * 50 + [3] * 20)
    digests = [row.tobytes() for row in train.digests]
    first = split(Index(NAMES, 1, 255, {"train": train}), balanced=False).splits["train"]
    trained = int(np.flatnonzero(first == TRAIN)[0])
    digests[160] = digests[trained]
    copied = Part.of(train.labels, digests)
    held_out = split(Index(NAMES, 1, 255, {"train": copied}), balanced=False)
    assert held_out.splits["train"][160] == UNUSED
    assert held_out.repeated == [("train image 160", f"train image {trained}")]


def test_groups_go_into_one_split():
    labels = np.arange(1200) % 3
    groups = np.arange(1200) // 60
    of = Index(NAMES, 1, 255, {"train": part(labels, groups=groups), "test": part([3, 0], seed=1)})
    splits = split(of).splits["train"]
    for group in range(20):
        assert len(set(splits[groups == group])) == 1
    assert len(set(splits)) == 3


def test_no_split_is_empty_however_few_images_there_are():
    for seed in range(20):
        of = of_labels(train=[0] * 6 + [1] * 6 + [3] * 4)
        of = Index(("a", "b", "c", "d"), 1, 255, {"train": part(of.parts["train"].labels, seed)})
        splits = hold_out(
            Index(("a", "b", "d"), 1, 255, {"train": part([0] * 8 + [1] * 8 + [2] * 4, seed)}),
            (2,),
            split_seed=0,
            eval_fraction=0.05,
            calibration_fraction=0.05,
            test_fraction=0.2,
        ).splits["train"]
        assert set(range(4)) <= set(splits.tolist())


def test_limit_per_class_counts_in_each_part():
    of = index(400, 200)
    splits = split(of, limit_per_class=20).splits
    for label in range(3):
        assert (splits["train"][of.parts["train"].labels == label] != UNUSED).sum() == 20
    assert (splits["test"] == TEST).sum() == 40


def test_too_few_images_of_a_class():
    of = of_labels(train=[0] * 50 + [1] + [2] * 50 + [3] * 10)
    with pytest.raises(UserError, match="Class 'b' has 1 images .*a class needs at least 2"):
        split(of)


def test_shares_that_leave_nothing():
    with pytest.raises(UserError, match="leave nothing to train on") as raised:
        split(index(400), eval_fraction=0.7)
    assert raised.value.settings == ("test_fraction", "eval_fraction", "calibration_fraction")


@pytest.mark.parametrize(
    ("test", "message"), [([0, 1, 2], r"no anomalous \(d\) images"), ([3, 3], "no normal images")]
)
def test_a_one_sided_test_part(test, message):
    with pytest.raises(UserError, match=message):
        split(of_labels(train=np.arange(200) % 4, test=test))


def test_what_was_held_out_is_saved_and_the_same_data_gives_the_same_file(tmp_path):
    train = part([0, 1, 2, 3] * 20)
    names = [f"gr\u00f6\u00dfe/{place}\udce9.png" for place in range(80)]
    train = Part.of(train.labels, [row.tobytes() for row in train.digests], names)
    held_out = split(Index(NAMES, 3, 1360, {"train": train}))
    path = held_out.save(str(tmp_path))
    loaded = HeldOut.load(path)
    assert loaded.index.fingerprint == held_out.index.fingerprint
    assert (loaded.index.class_names, loaded.index.channels, loaded.index.white) == (NAMES, 3, 1360)
    assert loaded.index.parts["train"].names.tolist() == names
    assert (loaded.splits["train"] == held_out.splits["train"]).all()
    assert held_out.save(str(tmp_path)) == path
    other = split(Index(NAMES, 3, 1360, {"train": train}), split_seed=1)
    assert other.save(str(tmp_path)) != path
    content = Path(path).read_bytes()
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (content[:-1], content[:500], b"", changed):
        Path(path).write_bytes(damaged)
        held_out.save(str(tmp_path))
        assert Path(path).read_bytes() == content


def test_the_fingerprint_sees_class_name_order_and_content():
    def fingerprint(labels=(0, 1), digests=(b"a" * 32, b"b" * 32), names=("x", "y"), **options):
        of = Part.of(np.array(labels), list(digests), list(names))
        settings = {"class_names": ("p", "q"), "channels": 1, "white": 255, **options}
        return Index(parts={"train": of}, **settings).fingerprint

    others = {
        fingerprint(labels=(1, 0)),
        fingerprint(digests=(b"a" * 32, b"c" * 32)),
        fingerprint(names=("x", "z")),
        fingerprint((1, 0), (b"b" * 32, b"a" * 32), ("y", "x")),
        fingerprint(class_names=("p", "r")),
        fingerprint(channels=3),
    }
    assert len(others) == 6
    assert fingerprint() not in others
    assert fingerprint() == fingerprint()


def test_labels_count_the_normal_classes():
    classes = Classes(NAMES, (1,))
    assert classes.labels(np.array([0, 1, 2, 3, 1])).tolist() == [0, -1, 1, 2, -1]
    assert (classes.normal_names, classes.anomaly_names) == (("a", "c", "d"), ("b",))


def test_anomaly_by_name_or_index():
    assert resolve_anomaly(["d", "0"], NAMES) == (0, 3)
    assert resolve_anomaly(["1"], ("0", "2", "1")) == (2,)  # a name goes before an index


def test_lists_of_classes_and_names_with_commas_and_spaces():
    assert resolve_anomaly(["a, c"], NAMES) == (0, 2)
    assert resolve_anomaly(["a,b"], ("a", "a,b", "b", "c", "d")) == (1,)
    assert resolve_anomaly(["a", "c,d"], ("a", "b", "c,d", "e")) == (0, 2)
    assert resolve_anomaly(["good "], ("bad", "good", "good ", "other")) == (2,)
    # Composed and separate accents are the same to whoever reads them.
    assert resolve_anomaly(["Gr\u00f6\u00dfe"], ("a", "b", "Gro\u0308\u00dfe")) == (2,)


def test_a_number_is_no_index_where_names_look_like_numbers():
    names = ("01", "02", "03")
    assert resolve_anomaly(["01"], names) == (0,)
    with pytest.raises(UserError, match="'1' could mean a class of that name.*which is '02'"):
        resolve_anomaly(["1"], names)


@pytest.mark.parametrize(
    ("anomaly", "message"),
    [
        ([], "No anomaly class is given"),
        (["e"], "Unknown anomaly class 'e': the classes are a, b, c, d"),
        (["4"], "Unknown"),
        (["-1"], "Unknown"),
        (["a", "b", "c", "d"], "leaves no normal class"),
    ],
)
def test_senseless_anomalies(anomaly, message):
    with pytest.raises(UserError, match=message):
        resolve_anomaly(anomaly, NAMES)
