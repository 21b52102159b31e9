import gzip
import shutil
import sqlite3

import pytest

from models.errors import UserError
from pipeline.artifacts import check_database, damaged_records, remember, remove_damaged


@pytest.fixture
def output(tmp_path):
    """An output folder with a database and two artifacts, of which one has features beside it."""
    tmp_path /= "100% #1?"
    tmp_path.mkdir()
    with sqlite3.connect(tmp_path / "metadata.sqlite") as database:
        database.execute("CREATE TABLE Artifact (uri TEXT)")
        database.executemany("INSERT INTO Artifact VALUES (?)", [("x" * 500,)] * 200)
    database.close()
    for name in ("Gen/examples/1/Split-train", "Gen/examples/1/features", "Trainer/model/2"):
        (tmp_path / "pipeline" / name).mkdir(parents=True)
    with gzip.open(tmp_path / "pipeline/Gen/examples/1/Split-train/data.gz", "wb") as file:
        file.write(b"records" * 10_000)
    (tmp_path / "pipeline/Gen/examples/1/features/last.npy").write_bytes(b"1234")
    (tmp_path / "pipeline/Trainer/model/2/saved_model.pb").write_bytes(b"model")
    remember(tmp_path)
    return tmp_path


def test_whole_artifacts_and_what_is_added_are_left_alone(output):
    (output / "pipeline/Gen/examples/1/features/last.npy").write_bytes(b"123456")
    (output / "pipeline/Trainer/model/3").mkdir()
    check_database(output)
    assert remove_damaged(output) == []
    assert damaged_records(output) is None
    assert (output / "pipeline/Trainer/model/2/saved_model.pb").exists()


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"mod"), lambda path: path.unlink()]
)
def test_a_damaged_artifact_is_removed_as_a_whole_and_told(damage, output):
    damage(output / "pipeline/Trainer/model/2/saved_model.pb")
    (told,) = remove_damaged(output)
    assert "saved_model.pb was damaged or gone, so Trainer/model/2 is made again." in told
    assert not (output / "pipeline/Trainer/model/2").exists()
    assert (output / "pipeline/Gen/examples/1/Split-train/data.gz").exists()


def test_an_artifact_that_is_gone_as_a_whole_is_no_damage(output):
    shutil.rmtree(output / "pipeline/Trainer/model/2")
    assert remove_damaged(output) == []


@pytest.mark.parametrize("content", [None, "", "{"])
def test_without_sizes_nothing_is_removed(content, output):
    path = output / "pipeline" / ".sizes.json"
    path.unlink() if content is None else path.write_text(content)
    (output / "pipeline/Trainer/model/2/saved_model.pb").unlink()
    assert remove_damaged(output) == []


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_the_damaged_file_of_records_is_found(damage, output):
    path = output / "pipeline/Gen/examples/1/Split-train/data.gz"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    assert damaged_records(output) == str(path)


def test_a_damaged_database(output):
    path = output / "metadata.sqlite"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match=r"metadata\.sqlite is damaged \(.*remove it and .*pipelin"):
        check_database(output)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match=r"is damaged \(file is not a database\)"):
        check_database(output)


def test_a_locked_database(output, monkeypatch):
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **also: real(*given, **also, timeout=0))
    holder = real(output / "metadata.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UserError, match="is locked by another program"):
        check_database(output)
    holder.close()
    check_database(output)


def test_artifacts_whose_database_is_gone(output):
    (output / "metadata.sqlite").unlink()
    with pytest.raises(UserError, match="which knows them, is gone: remove"):
        check_database(output)
    shutil.rmtree(output / "pipeline")
    check_database(output)
