"""Notices artifacts of earlier runs that are damaged, so that the cache does not take them."""

import contextlib
import gzip
import json
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

from models.errors import UserError
from models.files import write_whole

DATABASE, ARTIFACTS, SERVING = "metadata.sqlite", "pipeline", "serving"
_SIZES = ".sizes.json"
# Folders of an artifact: component, output, number of the execution.
_FOLDER = "*/*/[0-9]*"
_GROWS = "features"  # The Trainer adds features to the examples, and looks after them itself.
_CHUNK = 1 << 20


def check_database(output: Path) -> None:
    """Checks the database of an output folder, if there is one.

    Raises:
        UserError: if it is damaged or locked, or if there are artifacts but no database.
    """
    path = output / DATABASE
    if not path.exists():
        if any((output / ARTIFACTS).glob(_FOLDER)):
            raise UserError(
                f"{output / ARTIFACTS} holds artifacts, but {path}, which knows them, is gone: "
                f"remove {output / ARTIFACTS}, or choose another output folder.",
                "output",
            )
        return
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            found = str(error)
        else:
            raise UserError(
                f"{path} is locked by another program: end that program first.", "output"
            ) from None
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise UserError(
            f"{path} is damaged ({found}): remove it and {output / ARTIFACTS}, and give the same "
            "command again; pushed models are not touched.",
            "output",
        )


def remove_damaged(output: Path) -> list[str]:
    """Removes artifacts whose files are not those that `remember` saw; the run makes them again.

    Returns:
        A sentence for each.
    """
    root = output / ARTIFACTS
    try:
        sizes = json.loads((root / _SIZES).read_text())
    except (OSError, ValueError):  # There was no run, or it was killed.
        return []
    told = []
    for folder in sorted({str(Path(*Path(name).parts[:3])) for name in sizes}):
        if not (root / folder).exists():
            continue  # TFX itself notices that.
        files = [name for name in sizes if name.startswith(f"{folder}/")]
        changed = [name for name in files if _size(root / name) != sizes[name]]
        if changed:
            shutil.rmtree(root / folder)
            told.append(f"{root / changed[0]} was damaged or gone, so {folder} is made again.")
    return told


def remember(output: Path) -> None:
    """Stores the size of each file of all artifacts."""
    root = output / ARTIFACTS
    if root.is_dir():
        write_whole(root / _SIZES, json.dumps({name: _size(root / name) for name in _names(root)}))


def damaged_records(output: Path) -> str | None:
    """The first file of records that cannot be read to its end, if there is one."""
    for path in sorted((output / ARTIFACTS).glob(f"{_FOLDER}/**/*.gz")):
        try:
            with gzip.open(path) as file:
                while file.read(_CHUNK):
                    pass
        except (OSError, EOFError, zlib.error):
            return str(path)
    return None


def _names(root: Path) -> Iterator[str]:
    for folder in root.glob(_FOLDER):
        for path in folder.rglob("*"):
            name = path.relative_to(root)
            if path.is_file() and name.parts[3] != _GROWS:
                yield str(name)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
