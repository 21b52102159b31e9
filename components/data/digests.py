"""Digests of files, kept from run to run, because hashing many photographs takes a while."""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from components.data.folder import printable, read_file
from components.data.formats import Info, read_info
from models.files import write_whole

# A file that changed this shortly before it was looked at may change again at the same time stamp.
_SETTLED_NS = 2_000_000_000


class DigestCache:
    """Digests and headers of the image files of a folder, by path, size and time stamps.

    They are kept in `~/.cache/capsad`, or in `XDG_CACHE_HOME`.

    Args:
        folder: absolute path of the folder.
    """

    def __init__(self, folder: str):
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache")
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        self._path = Path(base, "capsad", "digests", f"{name}.json")
        self._known: dict[str, list[Any]] = {}
        self._kept: dict[str, list[Any]] = {}
        self._started = time.time_ns()
        # If it is not there, or damaged, everything is looked at anew.
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = known if isinstance(known, dict) else {}

    def get(self, path: str, max_pixels: int) -> tuple[bytes, Info]:
        """Digest and header of a file.

        Raises:
            OSError: if it cannot be read.
            UnreadableError: if it is no image that can be read.
        """
        status = os.stat(path)
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        key = printable(path)
        known = self._known.get(key)
        with contextlib.suppress(TypeError, ValueError, IndexError):  # a damaged row
            if known and known[:3] == stamp:
                digest, info = bytes.fromhex(known[3]), Info(*known[4])
                if info.width * info.height <= max_pixels:
                    self._kept[key] = known
                    return digest, info
        content = read_file(path)
        digest, info = hashlib.sha256(content).digest(), read_info(content, max_pixels)
        if max(stamp[1:]) < self._started - _SETTLED_NS:
            self._kept[key] = [*stamp, digest.hex(), list(info)]
        return digest, info

    def save(self) -> None:
        """Writes what is known; a cache that cannot be written only costs time."""
        if self._kept == self._known:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(self._kept))
