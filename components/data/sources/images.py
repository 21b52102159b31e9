"""A folder of class folders of images."""

import hashlib
import io
import os
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from components.data.digests import DigestCache
from components.data.folder import (
    BESIDE,
    DEEP_COLOUR,
    HIDDEN,
    READ,
    ROTATED,
    UNREADABLE,
    Table,
    is_folder,
    printable,
    read_file,
    walk,
)
from components.data.formats import (
    MAX_PIXELS,
    WHITE,
    Info,
    UnreadableError,
    looks_like_image,
    to_decodable,
)
from components.data.index import Index, Part
from components.data.pixels import EncodedImage, Stored, UnreadableImage
from components.data.sources.base import Source
from models.errors import UserError

_TRAIN, _TEST, _MASKS = "train", "test", "ground_truth"
_EXAMPLE = "such as FOLDER/good/1.png and FOLDER/scratched/1.png"


class Images(Source):
    """Images in class folders, grey or colour, of any sizes: `FOLDER/CLASS/image.png`.

    JPEG, PNG, GIF (the first frame), BMP, WebP and TIFF (the first page) are told by their
    content. Deeper folders belong to the class. With `FOLDER/train/CLASS/...` and
    `FOLDER/test/CLASS/...` the parts are as given; a class that stands in `test` alone can only be
    an anomaly. As in MVTec AD, `FOLDER/ground_truth/CLASS/NAME_mask.png` shows where the image
    `test/CLASS/NAME.png` is anomalous. Grey images beside coloured ones become colour. Images are
    taken as they are stored, as in serving: a rotation in an EXIF note is not applied, but counted.

    Args:
        folder: the folder.
        max_pixels: largest number of pixels of an image.
    """

    name = "images"
    title = "Images: a folder of class folders of images, of any size, grey or colour"
    licence = "yours"
    how_to_get = f"Put the images of each class into a folder of its own, {_EXAMPLE}."
    options = {"max_pixels": ()}
    origin = "class folders"

    def __init__(self, folder: Path, max_pixels: int = MAX_PIXELS):
        self.folder = str(folder.absolute())
        self.max_pixels = max_pixels
        self._table = Table(self.folder)
        self._warnings: list[str] = []
        self._infos: list[Info] = []

    @classmethod
    def find(cls, data_dir: str | None = None, **options: Any) -> Self | None:
        """The images in `data_dir`."""
        if data_dir is None:
            return None
        folder = Path(data_dir).expanduser()
        if not os.path.isdir(folder):
            raise UserError(f"The folder of images {folder} does not exist or is not a folder.")
        return cls(folder, **options)

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the classes: those of their folders, in order of name."""
        return self._index.class_names

    @property
    def channels(self) -> int:  # type: ignore[override]
        """1 if all images are grey, else 3."""
        return self._index.channels

    @property
    def white(self) -> int:  # type: ignore[override]
        """The largest grey value of the 16-bit grey images of the training part."""
        return self._index.white

    @property
    def table(self) -> Table:
        """What became of the files of the folder."""
        return self._table

    @property
    def infos(self) -> list[Info]:
        """What the headers of the image files say."""
        return self._infos

    @property
    def warnings(self) -> list[str]:
        """Sentences about the data that the user must know."""
        return self._warnings

    def labels(self) -> dict[str, np.ndarray]:
        """Part -> labels, int64, shape (N,)."""
        return {name: part.labels for name, part in self._index.parts.items()}

    def stored(self, part: str, start: int, stop: int) -> Iterator[Stored]:
        """The contents of the files of images `start` to `stop`.

        Raises:
            UserError: if a file is no longer what it was when the run was planned.
        """
        names, digests = self._index.parts[part].names, self._index.parts[part].digests
        for place in range(start, min(stop, len(names))):
            path = os.path.join(self.folder, str(names[place]))
            content = self._unchanged(path, digests[place].tobytes().hex())
            try:
                yield EncodedImage(printable(path), to_decodable(content, self.max_pixels))
            except UnreadableError as error:
                yield UnreadableImage(printable(path), str(error))

    def mask(self, part: str, place: int) -> np.ndarray | None:
        """Where an image is anomalous, from its file in `ground_truth`.

        Raises:
            UserError: if the file is no longer what it was when the run was planned, or damaged.
        """
        found = self._index.parts[part]
        name, digest = str(found.masks[place]), str(found.mask_digests[place])
        if not name:
            return None
        path = os.path.join(self.folder, name)
        content = self._unchanged(path, digest)
        try:
            return np.asarray(Image.open(io.BytesIO(content)).convert("L")) > 0
        except OSError as error:
            raise UserError(f"The mask {printable(path)} cannot be read: {error}.") from None

    def verify(self) -> None:
        """Looks at all files, by which those that cannot be read are counted in `table`."""
        _ = self._index

    def index(self) -> Index:
        """Class, path and digest of every image, from a cache where the files did not change."""
        return self._index

    def adopt(self, index: Index) -> None:
        """Takes an index that was made before."""
        self.__dict__["_index"] = index

    @cached_property
    def _index(self) -> Index:
        roots = self._roots()
        files = {part: self._class_files(root) for part, root in roots.items()}
        class_names = tuple(sorted({name for found in files.values() for name in found}))
        if not class_names:
            raise UserError(
                f"{self.folder} has no class folders of images. {self.how_to_get}"
                + "".join(f" {line}." for line in self._table.lines())
            )
        self._warn_of_names(class_names)
        cache = DigestCache(self.folder)
        parts, infos = {}, []
        for part, found in files.items():
            rows = [
                (class_names.index(name), path, *known)
                for name in sorted(found)
                for path in found[name]
                if (known := self._look_at(path, cache))
            ]
            parts[part] = Part.of(
                np.array([label for label, *_ in rows], "int64"),
                [digest for _, _, digest, _ in rows],
                [os.path.relpath(path, self.folder) for _, path, *_ in rows],
                masks=[self._find_mask(path, cache) for _, path, *_ in rows],
            )
            infos.append([info for *_, info in rows])
        cache.save()
        self._warn_of_masks(parts)
        self._infos = [info for of_part in infos for info in of_part]
        is_grey = all(info.is_grey for info in self._infos)
        white = max((info.brightest for info in infos[0]), default=0) or WHITE
        if white != WHITE:
            deep = sum(info.brightest > 0 for info in infos[0])
            self._warnings.append(
                f"{deep} images have 16 bits: their largest grey value, {white}, becomes white."
            )
        return Index(class_names, 1 if is_grey else 3, white, parts)

    def _unchanged(self, path: str, digest: str) -> bytes:
        """The content of a file, which must still have the digest that it had."""
        try:
            content = read_file(path)
            if hashlib.sha256(content).hexdigest() == digest:
                return content
        except OSError:
            pass
        raise UserError(
            f"{printable(path)} changed after the run had looked at it: start the same command "
            "again."
        )

    def _find_mask(self, path: str, cache: DigestCache) -> tuple[str, str]:
        """Relative path and digest of the mask of an image of `test`, or two empty texts."""
        stem, _ = os.path.splitext(os.path.relpath(path, os.path.join(self.folder, _TEST)))
        if stem.startswith(os.pardir):
            return "", ""
        name = os.path.join(_MASKS, f"{stem}_mask.png")
        try:
            digest, _ = cache.get(os.path.join(self.folder, name), self.max_pixels)
        except (OSError, UnreadableError) as error:
            if not isinstance(error, FileNotFoundError):
                self._table.add(UNREADABLE, f"{name} ({error})")
            return "", ""
        return name, digest.hex()

    def _roots(self) -> dict[str, str]:
        """Part -> its folder. `train` is a part if it holds folders and no image itself."""
        train, test = (os.path.join(self.folder, part) for part in (_TRAIN, _TEST))
        entries = _entries(train) if os.path.isdir(train) else []
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        has_images = any(looks_like_image(e.name, b"") for e in visible if os.path.isfile(e))
        if has_images or not any(map(is_folder, visible)):
            return {_TRAIN: self.folder}
        roots = {_TRAIN: train} | ({_TEST: test} if os.path.isdir(test) else {})
        for entry in _entries(self.folder):
            if entry.name in roots or entry.name.startswith("."):
                continue
            if entry.name == _MASKS and _TEST in roots:
                continue
            if is_folder(entry):
                count = len(list(walk(entry.path, Table())))
                self._table.add(BESIDE, f"{entry.path}/", count)
                self._warnings.append(
                    f"The folder {printable(entry.name)}/ is not used: its {count} images are "
                    f"beside {' and '.join(f'{part}/' for part in roots)}, not in it."
                )
            else:
                self._table.add(BESIDE, entry.path)
        return roots

    def _class_files(self, root: str) -> dict[str, list[str]]:
        """Class -> paths of its images, of which those that cannot be read are still a part."""
        found = {}
        for entry in _entries(root):
            if entry.name.startswith("."):
                self._table.add(HIDDEN, entry.path)
            elif not is_folder(entry):
                self._table.add(BESIDE, entry.path)
            elif not entry.name.isprintable() or printable(entry.name) != entry.name:
                raise UserError(
                    f"The name of the class folder '{printable(entry.name)}' in {root} is no plain "
                    "text in UTF-8: rename the folder."
                )
            else:
                paths = list(walk(entry.path, self._table))
                if paths:
                    found[entry.name] = paths
                else:
                    self._warnings.append(
                        f"The folder {entry.name}/ holds no images, so it is not a class."
                    )
        return found

    def _look_at(self, path: str, cache: DigestCache) -> tuple[bytes, Info] | None:
        """Digest and header of an image; one that cannot be read is counted."""
        try:
            digest, info = cache.get(path, self.max_pixels)
        except (OSError, UnreadableError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._table.add(UNREADABLE, f"{path} ({reason})")
            return None
        self._table.add(READ, path)
        if info.is_rotated:
            self._table.add(ROTATED, path)
        if info.is_deep and not info.brightest:
            self._table.add(DEEP_COLOUR, path)
        return digest, info

    def _warn_of_masks(self, parts: dict[str, Part]) -> None:
        if _TEST not in parts:
            return
        used = {os.path.join(self.folder, name) for name in parts[_TEST].masks.tolist() if name}
        masks = list(walk(os.path.join(self.folder, _MASKS), Table()))
        idle = [path for path in masks if path not in used]
        if idle:
            self._warnings.append(
                f"{len(idle)} masks in {_MASKS}/ belong to no image of test/; the first is "
                f"{printable(idle[0])}. The mask of test/CLASS/NAME.png is "
                f"{_MASKS}/CLASS/NAME_mask.png."
            )

    def _warn_of_names(self, class_names: tuple[str, ...]) -> None:
        alike: dict[str, list[str]] = {}
        for name in class_names:
            plain = unicodedata.normalize("NFC", name).casefold().replace(" ", "")
            alike.setdefault(plain, []).append(name)
        for names in alike.values():
            if len(names) > 1:
                listed = ", ".join(f"'{name}'" for name in names)
                self._warnings.append(
                    f"The classes {listed} differ only in case, in spaces or in the way accents "
                    "are written: are they meant to be different?"
                )


def _entries(folder: str) -> list[os.DirEntry]:
    """What a folder holds, in order of name."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"Cannot read the folder {folder}: {error.strerror}.") from None
