import gzip
import os
from pathlib import Path

import pytest
from apache_beam.io.localfilesystem import LocalFileSystem

from components.data.remote import local_copy
from models.errors import UserError


class Bucket(LocalFileSystem):
    """A folder that Beam knows by an URI; Beam finds it among the subclasses."""

    @classmethod
    def scheme(cls):
        return "bucket"

    def _list(self, dir_or_prefix):
        for folder, _, files in os.walk(dir_or_prefix.removeprefix("bucket:/")):
            for file in files:
                yield self.metadata(f"bucket:/{folder.rstrip('/')}/{file}")

    def exists(self, path):  # to an object store folders are nothing
        return os.path.isfile(path.removeprefix("bucket:/"))

    def metadata(self, path):
        found = super().metadata(path.removeprefix("bucket:/"))
        found.path = path
        return found

    def open(self, path, *arguments, **options):
        return super().open(path.removeprefix("bucket:/"), *arguments, **options)

    def join(self, base, *paths):
        return "/".join((base.rstrip("/"), *paths))


@pytest.fixture
def data(tmp_path):
    for file in ("photos/train/a/1.png", "photos/train/b/2.png", "photos/x.npz", "photos2/3.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    return tmp_path


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_is_copied_with_its_subfolders_under_its_name(data, slash):
    with local_copy(f"bucket:/{data}/photos{slash}") as copy:
        assert not copy.startswith(str(data))
        files = {str(path.relative_to(copy)): path for path in Path(copy).rglob("*.*")}
        assert set(files) == {"train/a/1.png", "train/b/2.png", "x.npz"}
        assert files["train/b/2.png"].read_text() == "photos/train/b/2.png"
        assert Path(copy).name == "photos"
    assert not os.path.exists(copy)


def test_a_file(data):
    with local_copy(f"bucket:/{data}/photos/x.npz") as copy:
        assert Path(copy).name == "x.npz"
        assert Path(copy).read_text() == "photos/x.npz"


def test_gzipped_files_stay_so(data):
    (data / "photos" / "x.gz").write_bytes(gzip.compress(b"x"))
    with local_copy(f"bucket:/{data}/photos") as copy:
        assert gzip.decompress(Path(copy, "x.gz").read_bytes()) == b"x"


@pytest.mark.parametrize("data_dir", [None, "relative/folder", "/some/folder"])
def test_what_is_on_this_machine_is_not_copied(data_dir):
    with local_copy(data_dir) as copy:
        assert copy == data_dir


def test_nothing_there(data):
    with (
        pytest.raises(UserError, match=r"no data at bucket:/.*/nothing"),
        local_copy(f"bucket:/{data}/nothing"),
    ):
        pass
