"""A folder of class folders of images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np

from components.data.folder import is_image, walk
from components.data.sources.base import Source, UnreadableImage
from models.errors import UserError

_GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")
_PARTS = ("train", "test")


class Images(Source):
    """PNG and JPEG images, grey or colour, of any sizes: `FOLDER/CLASS/image.png`.

    With `FOLDER/train/CLASS/...` and `FOLDER/test/CLASS/...` the parts are as given; a class that
    stands in `test` alone can only be an anomaly. Grey images beside coloured ones become colour.
    Images are taken as they are stored, as in serving: EXIF rotation is not applied.
    """

    name = "images"
    title = "Images: a folder of class folders of PNG or JPEG images, of any size, grey or colour"
    licence = "yours"
    how_to_get = (
        "Put the images of each class into a folder of its own, and name the folder of these."
    )
    origin = "class folders"
    image_shape = None

    def __init__(self, folder: Path):
        self.folder = str(folder.absolute())
        split = all((folder / part).is_dir() for part in _PARTS)
        self.pattern = "*/*/*" if split else "*/*"
        roots = {part: folder / part for part in _PARTS} if split else {"train": folder}
        found = {part: _class_files(root) for part, root in roots.items()}
        self.class_names = tuple(sorted({name for files in found.values() for name in files}))
        if not self.class_names:
            raise UserError(
                f"{folder} has no class folders of PNG or JPEG images. {self.how_to_get}"
            )
        self._files: dict[str, list[str]] = {}
        self._labels: dict[str, np.ndarray] = {}
        for part, files in found.items():
            pairs = [(path, self.class_names.index(name)) for name in files for path in files[name]]
            self._files[part] = [path for path, _ in pairs]
            self._labels[part] = np.array([label for _, label in pairs], "int64")
        paths = (path for files in self._files.values() for path in files)
        self.channels = 3 if any(_is_colour(path) for path in paths) else 1

    @classmethod
    def find(cls, data_dir: str | None = None, **options: str) -> Self | None:
        """The images in `data_dir`."""
        if data_dir is None:
            return None
        folder = Path(data_dir).expanduser()
        if not folder.is_dir():
            raise UserError(f"The folder of images {folder} does not exist or is not a folder.")
        return cls(folder)

    def labels(self) -> dict[str, np.ndarray]:
        """Part -> labels, int64, shape (N,)."""
        return dict(self._labels)

    def read(self, part: str, start: int, stop: int) -> Iterator[np.ndarray | UnreadableImage]:
        """Images `start` to `stop`, uint8, shape (H, W, channels)."""
        for path in self._files[part][start:stop]:
            try:
                yield self._decode(path)
            except Exception as error:  # Pillow lets through whatever its decoders raise
                yield UnreadableImage(path, str(error).replace(repr(path), "the file"))

    def verify(self) -> None:
        """Nothing to check beforehand: images that cannot be decoded are counted when read."""

    def _decode(self, path: str) -> np.ndarray:
        from PIL import Image

        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits: the upper eight, as TensorFlow decodes them
                image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
            pixels = np.asarray(image.convert("L" if self.channels == 1 else "RGB"))
        return pixels if self.channels == 3 else pixels[..., None]


def _class_files(root: Path) -> dict[str, list[str]]:
    """Class -> sorted paths of its images; folders without images are no classes."""
    found = {}
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            paths = [path for path in walk(str(folder.absolute()), deep=False) if is_image(path)]
            if paths:
                found[folder.name] = paths
    return found


def _is_colour(path: str) -> bool:
    """By the header alone; an image that cannot be opened does not count."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.mode not in _GREY_MODES
    except Exception:
        return False
