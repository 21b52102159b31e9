import gzip
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from components.data import sources
from components.data.folder import READ, UNREADABLE
from components.data.pixels import UnreadableImage
from models.errors import UserError

IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
NORB_PREFIXES = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}


@pytest.fixture(autouse=True)
def nothing_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no-tfds"))
    monkeypatch.setattr(sources.describe("fashion_mnist"), "system_folders", ())


def store(path, content, compressed):
    if compressed:
        path = path.with_name(path.name + ".gz")
        content = gzip.compress(content)
    path.write_bytes(content)
    return path


def write_idx(folder, compressed=True, count=(20, 10)):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    arrays = {}
    for (part, (image_file, label_file)), n in zip(IDX_FILES.items(), count, strict=True):
        images = generator.integers(0, 256, (n, 5, 4), dtype="uint8")
        labels = np.arange(n, dtype="uint8") % 10
        arrays[part] = images, labels
        for file, array in ((image_file, images), (label_file, labels)):
            header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            store(folder / file, header + array.tobytes(), compressed)
    return arrays


def matrix(array):
    """smallNORB's binary matrix: little-endian magic, ndim, at least three dimensions, data."""
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[array.dtype.name]
    dims = [*array.shape, *[1] * (3 - array.ndim)]
    header = struct.pack("<Ii", magic, array.ndim) + struct.pack(f"<{len(dims)}i", *dims)
    return header + array.astype(array.dtype.newbyteorder("<")).tobytes()


def write_norb(folder, compressed=True, count=(10, 5)):
    generator = np.random.default_rng(1)
    arrays = {}
    for (part, prefix), n in zip(NORB_PREFIXES.items(), count, strict=True):
        dat = generator.integers(0, 256, (n, 2, 96, 96), dtype="uint8")
        cat = np.arange(n, dtype="int32") % 5
        info = generator.integers(0, 18, (n, 4)).astype("int32")
        arrays[part] = dat, cat, info
        for kind, array in (("dat", dat), ("cat", cat), ("info", info)):
            store(folder / f"{prefix}-{kind}.mat", matrix(array), compressed)
    return arrays


def read_all(source, part):
    return list(source.read(part, 0, len(source.labels()[part])))


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    source = sources.get("digits")
    source.verify()
    expected = load_digits()
    np.testing.assert_array_equal(source.labels()["train"], expected.target)
    images = np.stack(read_all(source, "train"))
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0], np.rint(expected.images * 255 / 16))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files(name, compressed, tmp_path, caplog):
    arrays = write_idx(tmp_path, compressed)
    source = sources.find(name, str(tmp_path))
    for part, (images, labels) in arrays.items():
        np.testing.assert_array_equal(source.labels()[part], labels)
        np.testing.assert_array_equal(np.stack(read_all(source, part))[..., 0], images)
    assert source.image_shape == (5, 4)
    some = list(source.read("train", 7, 11))
    np.testing.assert_array_equal(np.stack(some)[..., 0], arrays["train"][0][7:11])
    source.verify()
    assert "Not the original" in caplog.text


def test_original_checksums_pass_silently(caplog):
    from pathlib import Path

    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    source = sources.find("fashion_mnist", str(folder))
    source.verify()
    assert not caplog.text
    assert np.bincount(source.labels()["train"]).tolist() == [6000] * 10
    with pytest.raises(UserError, match="another data set's, not 'mnist'"):
        sources.find("mnist", str(folder))


def test_search_order(tmp_path, monkeypatch):
    assert sources.find("mnist") is None
    write_idx(tmp_path / "data" / "mnist")
    monkeypatch.setenv("CAPSAD_DATA_DIR", str(tmp_path / "data"))
    assert sources.find("mnist").folder == str(tmp_path / "data" / "mnist")
    # Files of the same names, but in a folder that says what they are.
    assert sources.find("fashion_mnist") is None
    write_idx(tmp_path / "data" / "fashion-mnist")
    assert sources.find("fashion_mnist").folder == str(tmp_path / "data" / "fashion-mnist")


def test_missing_files_are_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"missing t10k-labels-idx1-ubyte\[.gz\]"):
        sources.find("mnist", str(tmp_path))
    with pytest.raises(UserError, match="is not a folder"):
        sources.find("mnist", str(tmp_path / "nowhere"))


def cut(content):
    return content[:-3]


def shift_magic(content):
    return b"\1" + content[1:]


def lengthen(content):
    return content + b"123"


@pytest.mark.parametrize("file", [*IDX_FILES["train"], *IDX_FILES["test"]])
@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut, "truncated"), (shift_magic, "not an idx file"), (lengthen, "too long")],
)
def test_damaged_idx_files_are_named(file, damage, message, tmp_path):
    write_idx(tmp_path, compressed=False)
    (tmp_path / file).write_bytes(damage((tmp_path / file).read_bytes()))
    with pytest.raises(UserError, match=f"{file}.*{message}"):
        sources.find("mnist", str(tmp_path)).verify()


@pytest.mark.parametrize(
    ("damage", "message"), [(cut, "truncated|corrupt"), (shift_magic, "corrupt")]
)
def test_damaged_gzip_files_are_named(damage, message, tmp_path):
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"train-images-idx3-ubyte.gz is ({message})"):
        sources.find("mnist", str(tmp_path)).verify()


def test_labels_and_images_must_be_equally_many(tmp_path):
    write_idx(tmp_path)
    other = tmp_path / "other"
    write_idx(other, count=(19, 10))
    (other / "train-labels-idx1-ubyte.gz").replace(tmp_path / "train-labels-idx1-ubyte.gz")
    with pytest.raises(UserError, match="19 labels, but .* 20 images"):
        sources.find("mnist", str(tmp_path)).verify()


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(("camera", "view"), [("left", 0), ("right", 1)])
def test_smallnorb(camera, view, compressed, tmp_path):
    arrays = write_norb(tmp_path, compressed)
    source = sources.find("smallnorb", str(tmp_path), camera=camera)
    source.verify()
    assert source.image_shape == (96, 96)
    for part, (dat, cat, info) in arrays.items():
        np.testing.assert_array_equal(source.labels()[part], cat)
        np.testing.assert_array_equal(np.stack(read_all(source, part))[..., 0], dat[:, view])
        np.testing.assert_array_equal(source.information(part)["azimuth"], info[:, 2])


def test_smallnorb_has_two_cameras(tmp_path):
    write_norb(tmp_path)
    with pytest.raises(UserError, match="no option camera=top.*left, right"):
        sources.find("smallnorb", str(tmp_path), camera="top")


@pytest.mark.parametrize("kind", ["dat", "cat", "info"])
@pytest.mark.parametrize(
    ("damage", "message"), [(cut, "truncated"), (shift_magic, "not a binary matrix")]
)
def test_damaged_smallnorb_files_are_named(kind, damage, message, tmp_path):
    write_norb(tmp_path, compressed=False)
    path = tmp_path / f"{NORB_PREFIXES['test']}-{kind}.mat"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{kind}.mat.*{message}"):
        sources.find("smallnorb", str(tmp_path)).verify()


def test_smallnorb_of_the_wrong_kind(tmp_path):
    write_norb(tmp_path, compressed=False)
    cat = tmp_path / f"{NORB_PREFIXES['train']}-cat.mat"
    cat.write_bytes(matrix(np.zeros((10, 4), "int32")))
    with pytest.raises(UserError, match="cat.mat holds int32 of shape"):
        sources.find("smallnorb", str(tmp_path)).verify()
    cat.write_bytes(matrix(np.zeros(9, "int32")))
    with pytest.raises(UserError, match="is of 10 photographs, but .*of 9"):
        sources.find("smallnorb", str(tmp_path)).verify()


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def grey(seed, size=(9, 7)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype="uint8")


def test_folder_of_class_folders(tmp_path):
    for index in range(3):
        save(tmp_path / "nut" / f"{index}.png", grey(index, (9 + index, 7)))
    save(tmp_path / "bolt" / "a.PNG", grey(5))
    (tmp_path / "bolt" / "readme.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    source = sources.find("images", str(tmp_path))
    assert source.class_names == ("bolt", "nut")
    assert source.channels == 1
    assert source.labels()["train"].tolist() == [0, 1, 1, 1]
    images = read_all(source, "train")
    assert [image.shape for image in images] == [(9, 7, 1), (9, 7, 1), (10, 7, 1), (11, 7, 1)]
    np.testing.assert_array_equal(images[0][..., 0], grey(5))


def test_colour_beside_grey_becomes_colour(tmp_path):
    save(tmp_path / "a" / "1.png", grey(0))
    save(tmp_path / "b" / "1.jpeg", np.zeros((6, 6, 3), "uint8") + np.uint8([200, 10, 10]))
    source = sources.find("images", str(tmp_path))
    assert source.channels == 3
    first, second = read_all(source, "train")
    np.testing.assert_array_equal(first, grey(0)[..., None].repeat(3, -1))
    assert abs(int(second[3, 3, 0]) - 200) < 5


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    array = np.array([[0, 256, 65535]], "uint16")
    save(tmp_path / "a" / "1.png", array)
    source = sources.find("images", str(tmp_path))
    assert read_all(source, "train")[0].reshape(-1).tolist() == [0, 1, 255]


def test_train_and_test_folders(tmp_path):
    save(tmp_path / "train" / "good" / "1.png", grey(0))
    save(tmp_path / "test" / "good" / "1.png", grey(1))
    save(tmp_path / "test" / "broken" / "1.png", grey(2))
    source = sources.find("images", str(tmp_path))
    assert source.class_names == ("broken", "good")
    assert {part: labels.tolist() for part, labels in source.labels().items()} == {
        "train": [1],
        "test": [0, 1],
    }


def test_undecodable_images_are_given_by_name(tmp_path):
    save(tmp_path / "a" / "1.png", grey(0))
    (tmp_path / "a" / "2.png").write_bytes(b"no image at all")
    good = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "3.png").write_bytes(good[: len(good) // 2])
    source = sources.find("images", str(tmp_path))
    items = read_all(source, "train")
    # What is no image is not in the index, but counted; what is damaged is found when it is read.
    assert [isinstance(item, UnreadableImage) for item in items] == [False, True]
    assert items[1].path.endswith("3.png")
    assert items[1].reason
    assert source.table.counts == {READ: 2, UNREADABLE: 1}
    assert "2.png (no image of a known format, or damaged)" in source.table.names[UNREADABLE][0]


@pytest.mark.parametrize("name", sources.names())
def test_a_path_that_cannot_be_looked_at_is_one_that_is_not_there(name, tmp_path):
    """This one is too long; one in a closed folder raises an OSError as well."""
    with pytest.raises(UserError, match="does not exist|is not"):
        sources.get(name, str(tmp_path / ("x" * 300)))


def test_folders_without_images(tmp_path):
    with pytest.raises(UserError, match="no class folders"):
        sources.find("images", str(tmp_path)).labels()
    with pytest.raises(UserError, match="does not exist"):
        sources.find("images", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3)])
def test_npz(save_npz, shape, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype="uint8")
    labels = np.arange(12) % 3
    path = tmp_path / "data.npz"
    save_npz(path, x_train=images, y_train=labels, x_test=images[:4], y_test=labels[:4, None])
    source = sources.find("npz", str(path))
    source.verify()
    assert source.class_names == ("0", "1", "2")
    assert source.channels == (shape + (1,))[2]
    np.testing.assert_array_equal(source.labels()["test"], labels[:4])
    part = np.stack(list(source.read("train", 3, 8)))
    np.testing.assert_array_equal(part.reshape(5, *shape), images[3:8])


def test_npz_names_its_classes(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(
        path,
        x_train=np.zeros((4, 3, 3), "uint8"),
        y_train=[0, 1, 0, 1],
        class_names=["cat", "dog"],
    )
    assert sources.find("npz", str(path)).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.zeros((2, 3, 3), "uint8")}, "lacks x_train or y_train"),
        ({"x_train": np.zeros((2, 3, 3)), "y_train": [0, 1]}, "must be uint8.*from 0 to 255"),
        ({"x_train": np.zeros((2, 3, 3), "uint8"), "y_train": [0, 2_000_000_000]}, "no 1.*them so"),
        ({"x_train": np.zeros((2, 3, 3), "uint8"), "y_train": [1, 2]}, "there is no 0"),
        (
            {
                "x_train": np.zeros((2, 3, 3), "uint8"),
                "y_train": [0, 1],
                "class_names": ["same", "same"],
            },
            "class_names has 'same' more than once",
        ),
        ({"x_train": np.zeros((2, 3, 3), "uint8"), "y_train": [0]}, "2 whole numbers"),
        ({"x_train": np.zeros((2, 3, 3), "uint8"), "y_train": [0.5, 1]}, "whole numbers"),
        ({"x_train": np.zeros((2, 3, 3), "uint8"), "y_train": [-1, 1]}, "labels from -1 to 1"),
        ({"x_train": np.zeros((0, 3, 3), "uint8"), "y_train": np.zeros(0, int)}, "at least one"),
        (
            {"x_train": np.zeros((1, 3, 3), "uint8"), "y_train": np.array([object()])},
            "no Python objects",
        ),
    ],
)
def test_unfit_npz_files(arrays, message, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(UserError, match=message):
        sources.find("npz", str(tmp_path / "data.npz")).verify()


def test_damaged_npz_files(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x_train=np.ones((9, 30, 30), "uint8"), y_train=np.arange(9) % 2)
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"data.npz is corrupt"):
        sources.find("npz", str(path)).verify()
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"data.npz is corrupt"):
        sources.find("npz", str(path))


def test_sources_pickle_for_beam_workers(tmp_path):
    write_norb(tmp_path)
    for source in (sources.get("digits"), sources.find("smallnorb", str(tmp_path), camera="right")):
        copy = pickle.loads(pickle.dumps(source))  # noqa: S301
        part = next(iter(source.labels()))
        np.testing.assert_array_equal(next(copy.read(part, 1, 2)), next(source.read(part, 1, 2)))


def test_unknown_names():
    with pytest.raises(UserError, match="Unknown source 'mnst'.*Did you mean mnist"):
        sources.get("mnst")


def test_what_cannot_be_had_says_how_to_get_it(monkeypatch):
    import socket

    def fail(*arguments):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(UserError, match="download by TFDS failed .*no network.*Put the four files"):
        sources.get("mnist")
    with pytest.raises(UserError, match="Put the images of each class"):
        sources.get("images")


def test_what_tfds_prepared_is_found_and_read(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    root = tmp_path / "tfds"
    arrays = {}

    class Smallnorb(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.0.0")
        name = "smallnorb"

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(6, 6, 1)),
                        "image2": tfds.features.Image(shape=(6, 6, 1)),
                        "label_category": tfds.features.ClassLabel(num_classes=5),
                        "instance": tfds.features.ClassLabel(num_classes=10),
                    }
                ),
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples(0), "test": self._generate_examples(1)}

        def _generate_examples(self, seed):
            for index in range(60):
                left, right = grey(2 * index + seed, (6, 6, 1)), grey(999 + index, (6, 6, 1))
                left[0, 0, 0] = right[0, 0, 0] = index
                arrays[seed, index] = left, right
                toys = {"label_category": index % 5, "instance": index % 10}
                yield index, {"image": left, "image2": right, **toys}

    # In several files, which TFDS by itself would read in turns.
    several = tfds.download.DownloadConfig(num_shards=4)
    Smallnorb(data_dir=str(root)).download_and_prepare(download_config=several)
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    source = sources.find("smallnorb", camera="right")
    assert source.origin == "TFDS"
    assert source.image_shape == (6, 6)
    assert len(list((root / "smallnorb" / "2.0.0").glob("*test*-of-00004"))) == 4
    labels, groups = source.labels()["test"], source.index().parts["test"].groups
    assert np.bincount(labels).tolist() == [12] * 5
    assert sorted(set(groups)) == list(range(10))
    for start, stop in ((0, 60), (13, 41)):
        for place, image in enumerate(source.read("test", start, stop), start):
            index = int(image[0, 0, 0])
            assert labels[place] == index % 5
            np.testing.assert_array_equal(image, arrays[1, index][1])
    digests = source.index().parts["test"].digests
    assert len({row.tobytes() for row in digests}) == 60
