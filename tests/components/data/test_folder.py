"""The walk over a folder, and the source that reads what it finds."""

import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from components.data import sources
from components.data.folder import (
    BESIDE,
    DEEP_COLOUR,
    HIDDEN,
    OTHER,
    READ,
    ROTATED,
    UNREADABLE,
    Table,
    find_images,
)
from models.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def save(path, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9), dtype="uint8")
    Image.fromarray(pixels).save(path, **options)


def names(source):
    return source.index().parts["train"].names.tolist()


def test_everything_is_read_or_counted(tmp_path):
    data = tmp_path / "data"
    for place, name in enumerate(("a/1.png", "a/2.TIF", "a/deep/er/3.gif", "b/4.bmp", "b/5.webp")):
        save(data / name, place)
    os.rename(data / "b" / "5.webp", data / "b" / "5.dat")  # told by its content
    (data / "a" / "._1.png").write_bytes(b"of macOS")
    (data / "a" / "Thumbs.db").write_bytes(b"of Windows")
    (data / ".git").mkdir()
    save(data / ".git" / "x.png")
    (data / "b" / "6.png").write_bytes(b"no image")
    (data / "notes.txt").write_text("beside the class folders")
    os.symlink(data / "nowhere.png", data / "b" / "7.png")
    os.symlink("9", data / "b" / "9")  # to itself
    os.symlink("loop", data / "loop")
    exif = Image.Exif()
    exif[0x0112] = 3
    save(data / "b" / "8.jpg", 8, exif=exif)

    source = sources.get("images", str(data))
    assert names(source) == [
        *("a/1.png", "a/2.TIF", "a/deep/er/3.gif", "b/4.bmp", "b/5.dat", "b/8.jpg")
    ]
    assert source.labels()["train"].tolist() == [0, 0, 0, 1, 1, 1]
    assert source.table.counts == {
        READ: 6,
        HIDDEN: 2,
        OTHER: 1,
        BESIDE: 2,
        UNREADABLE: 3,
        ROTATED: 1,
    }
    lines = "\n".join(source.table.lines())
    assert "2 files ignored, because hidden: .git, a/._1.png" in lines
    assert "1 file ignored, because no image: a/Thumbs.db" in lines
    assert "b/6.png (no image of a known format, or damaged)" in lines
    assert "b/7.png (No such file or directory)" in lines
    assert "b/9 (Too many levels of symbolic links)" in lines
    assert "1 file read as stored, though an EXIF note asks for a rotation: b/8.jpg" in lines


def test_scoring_and_training_take_the_same_files(tmp_path):
    data = tmp_path / "data"
    save(data / "a" / "1.png")
    save(data / "a" / "sub" / "2.jpg")
    save(tmp_path / "elsewhere" / "3.png")
    os.symlink(tmp_path / "elsewhere", data / "b")
    os.symlink(data, data / "a" / "round")  # in circles
    os.symlink("/", data / "a" / "root")
    (data / "a" / "notes.txt").write_text("no image")
    table = Table()
    scored = [os.path.relpath(path, data) for path in find_images([str(data)], table)]
    assert scored == ["a/1.png", "a/sub/2.jpg", "b/3.png"]
    assert scored == names(sources.get("images", str(data)))
    assert table.counts == {OTHER: 1}


def test_only_the_first_names_are_listed(tmp_path):
    table = Table()
    for place in range(7):
        table.add(HIDDEN, f".{place}")
        table.add(UNREADABLE, f"{place}.png (broken)")
    assert table.lines()[0] == "7 files ignored, because hidden: .0, .1, .2, .3, .4, ..."
    assert len(table.names[UNREADABLE]) == 7


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_closed_folder_is_unreadable(tmp_path):
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b" / "1.png")
    (tmp_path / "b").chmod(0)
    source = sources.get("images", str(tmp_path))
    source.verify()
    (tmp_path / "b").chmod(0o700)
    assert source.table.names[UNREADABLE] == ["b/ (Permission denied)"]


@pytest.mark.parametrize("change", ["move", "replace", "rename", "add", "remove"])
def test_every_change_is_seen_in_any_folder(change, tmp_path):
    data = tmp_path / "di [x]*"
    for name in ("a", "b"):
        for place in range(3):
            save(data / name / f"{place}.png", place + 10 * (name == "b"))
    before = sources.get("images", str(data)).index().fingerprint
    assert sources.get("images", str(data)).index().fingerprint == before
    path = data / "a" / "0.png"
    status = path.stat()
    if change == "move":
        path.rename(data / "b" / "9.png")
    elif change == "replace":  # by another of the same size and time
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "rename":
        path.rename(data / "a" / "00.png")
    elif change == "add":
        save(data / "a" / "4.png", 99)
    else:
        path.unlink()
    assert sources.get("images", str(data)).index().fingerprint != before


def test_digests_are_kept_for_files_that_did_not_change(tmp_path, cache, monkeypatch):
    data = tmp_path / "data"
    for place in range(4):
        save(data / "a" / f"{place}.png", place)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10_000_000_000)
    first = sources.get("images", str(data)).index()
    (kept,) = cache.rglob("*.json")
    assert len(json.loads(kept.read_text())) == 4
    from components.data import digests

    reads = []
    real = digests.read_file
    monkeypatch.setattr(digests, "read_file", lambda path: reads.append(path) or real(path))
    assert sources.get("images", str(data)).index().fingerprint == first.fingerprint
    assert reads == []
    save(data / "a" / "2.png", 77)
    assert sources.get("images", str(data)).index().fingerprint != first.fingerprint
    assert [os.path.basename(path) for path in reads] == ["2.png"]
    expected = sources.get("images", str(data)).index().fingerprint
    rows = json.loads(kept.read_text())
    others = [dict.fromkeys(rows, value) for value in (None, [], "x", [1, 2], {"a": 1})]
    others += [{name: [*row[:3], "no digest", 5] for name, row in rows.items()}]
    for damaged in ("damaged", "[]", "3", *map(json.dumps, others)):
        kept.write_text(damaged)
        assert sources.get("images", str(data)).index().fingerprint == expected


def test_a_file_that_changes_after_the_plan_is_not_read_as_if_it_had_not(tmp_path):
    save(tmp_path / "a" / "1.png")
    source = sources.get("images", str(tmp_path))
    index = source.index()
    save(tmp_path / "a" / "1.png", 5)
    later = sources.get("images", str(tmp_path))
    later.adopt(index)
    with pytest.raises(UserError, match=r"1.png changed after the run had looked at it"):
        next(later.read("train", 0, 1))


def test_folders_beside_train_and_test_are_told(tmp_path):
    for part in ("train", "val", "test"):
        save(tmp_path / part / "good" / "1.png", len(part))
    save(tmp_path / "test" / "bad" / "1.png", 9)
    for folder in (tmp_path, tmp_path / "train"):
        os.symlink("loop.png", folder / "loop.png")
    source = sources.get("images", str(tmp_path))
    assert {name: part.names.tolist() for name, part in source.index().parts.items()} == {
        "train": ["train/good/1.png"],
        "test": ["test/bad/1.png", "test/good/1.png"],
    }
    (warning,) = source.warnings
    assert warning.startswith("The folder val/ is not used: its 1 images are beside")


def test_train_alone_is_the_data_and_a_class_may_be_called_train(tmp_path):
    save(tmp_path / "one" / "train" / "good" / "1.png")
    assert sources.get("images", str(tmp_path / "one")).class_names == ("good",)
    save(tmp_path / "toys" / "train" / "1.png")
    save(tmp_path / "toys" / "car" / "1.png")
    assert sources.get("images", str(tmp_path / "toys")).class_names == ("car", "train")


def test_names_of_classes(tmp_path):
    for name in ("Good", "good", "good ", "\u7f3a\u9677", "a,b"):
        save(tmp_path / name / "1.png")
    source = sources.get("images", str(tmp_path))
    assert source.class_names == ("Good", "a,b", "good", "good ", "\u7f3a\u9677")
    (warning,) = source.warnings
    assert "The classes 'Good', 'good', 'good ' differ only in case, in spaces" in warning


def test_names_that_are_no_text(tmp_path):
    save(tmp_path / "a" / "1.png")
    os.rename(tmp_path / "a" / "1.png", os.fsencode(tmp_path / "a") + b"/caf\xe9.png")
    source = sources.get("images", str(tmp_path))
    assert len(list(source.read("train", 0, 1))) == 1
    os.rename(tmp_path / "a", os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(UserError, match=r"class folder 'caf\\xe9' .* no plain text in UTF-8"):
        sources.get("images", str(tmp_path)).labels()


def test_sixteen_bits_of_colour_are_counted(tmp_path):
    save(tmp_path / "a" / "1.png")
    import struct
    import zlib

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + bytes(range(6)) * 2 for _ in range(2))
    (tmp_path / "a" / "2.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    source = sources.get("images", str(tmp_path))
    assert source.channels == 3
    assert source.table.counts[DEEP_COLOUR] == 1


def test_a_limit_of_pixels(tmp_path):
    save(tmp_path / "a" / "1.png")
    Image.new("1", (300, 200)).save(tmp_path / "a" / "bomb.png")
    source = sources.get("images", str(tmp_path), max_pixels=59_999)
    source.verify()
    (name,) = source.table.names[UNREADABLE]
    assert name.startswith("a/bomb.png (300x200 are 60,000 pixels, more than the limit of 59,999")


@pytest.fixture
def mvtec(tmp_path):
    """One normal class, two kinds of defects, and masks for one of them."""
    data = tmp_path / "data"
    for place, name in enumerate(("train/good", "test/good", "test/crack", "test/hole")):
        for index in range(3):
            save(data / name / f"{index:03d}.png", 10 * place + index)
    masks = data / "ground_truth" / "crack"
    masks.mkdir(parents=True)
    for index in (0, 2):
        pixels = np.zeros((8, 9), "uint8")
        pixels[index] = 255
        Image.fromarray(pixels).save(masks / f"{index:03d}_mask.png")
    return data


def test_masks_belong_to_the_images_of_test(mvtec):
    source = sources.get("images", str(mvtec))
    part = source.index().parts["test"]
    place = {name: index for index, name in enumerate(part.names.tolist())}
    assert source.class_names == ("crack", "good", "hole")
    assert source.mask("test", place["test/crack/000.png"])[0].all()
    assert source.mask("test", place["test/crack/002.png"]).sum() == 9
    assert source.mask("test", place["test/crack/001.png"]) is None
    assert source.mask("test", place["test/hole/000.png"]) is None
    assert source.mask("train", 0) is None
    assert source.warnings == [] and BESIDE not in source.table.counts


def test_a_changed_mask_is_other_data(mvtec):
    source = sources.get("images", str(mvtec))
    before = source.index().fingerprint
    path = mvtec / "ground_truth" / "crack" / "000_mask.png"
    Image.fromarray(np.full((8, 9), 255, "uint8")).save(path)
    assert sources.get("images", str(mvtec)).index().fingerprint != before
    place = source.index().parts["test"].names.tolist().index("test/crack/000.png")
    with pytest.raises(UserError, match="000_mask.png changed after the run had looked at it"):
        source.mask("test", place)


def test_masks_of_no_image_and_damaged_ones_are_told(mvtec):
    os.rename(mvtec / "ground_truth" / "crack" / "002_mask.png", mvtec / "ground_truth" / "x.png")
    (mvtec / "ground_truth" / "crack" / "001_mask.png").write_bytes(b"no image")
    source = sources.get("images", str(mvtec))
    source.verify()
    assert any("2 masks in ground_truth/ belong to no image" in text for text in source.warnings)
    assert source.table.counts[UNREADABLE] == 1
    assert "crack/001_mask.png" in source.table.names[UNREADABLE][0]
