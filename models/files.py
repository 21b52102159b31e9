"""Writes files and folders whole: under a temporary name, flushed to the disk, then renamed.

A process that is killed, or a full disk, never leaves a half-written file under the real name.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file that appears under its name when the block ends without an error.

    A symbolic link is followed. A pipe or a device is written to directly.

    Args:
        path: path of the file; its folder must exist.
        mode: `w` for UTF-8 text whose line ends are written as they are, or `wb` for bytes.

    Raises:
        OSError: if the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    if target.exists() and not target.is_file() and not target.is_dir():
        with target.open(mode, **text) as file:
            yield file
        return
    incomplete = _temporary(target)
    try:
        with incomplete.open(mode, **text) as file:
            yield file
        if target.exists():
            os.chmod(incomplete, stat.S_IMODE(target.stat().st_mode))
        publish(incomplete, target)
    finally:
        incomplete.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a whole file.

    Raises:
        OSError: if the file cannot be written.
    """
    with whole_file(path, "wb" if isinstance(content, bytes) else "w") as file:
        file.write(content)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives an empty folder that takes the place of `path` when the block ends without an error.

    Raises:
        OSError: if the folder cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    incomplete = _temporary(target)
    shutil.rmtree(incomplete, ignore_errors=True)  # A killed process with this number left it.
    incomplete.mkdir()
    try:
        yield incomplete
        publish(incomplete, target)
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


def publish(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Renames a file or folder to `target`, after all of it has reached the disk.

    Raises:
        OSError: if that fails.
    """
    source, target = Path(source), Path(target)
    if source.is_dir():
        for folder, _, names in os.walk(source):
            for name in names:
                _flush(Path(folder, name))
            _flush(Path(folder))
        if target.is_dir():
            shutil.rmtree(target)
    else:
        _flush(source)
    os.replace(source, target)
    _flush(target.parent)


def spreadsheet_safe(cell: Any) -> Any:
    """Changes a cell of a CSV file so that no spreadsheet takes it for a formula.

    If a text begins like a formula (with `=`, `+`, `-`, `@`, a tabulator or a carriage return), an
    apostrophe is put before it. Numbers are not changed.
    """
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{cell}"
    return cell


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.incomplete")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
