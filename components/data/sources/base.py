"""The interface of a source."""

import abc
import hashlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from components.data.folder import Table
from components.data.formats import WHITE, Info
from components.data.index import Index, Part
from components.data.pixels import Stored, UnreadableImage, to_pixels


class Source(abc.ABC):
    """A labelled image data set in files of one folder.

    It pickles to its settings and file names, so that Beam workers read it in parallel.

    Attributes:
        name: name of the data set, as in `sources.get`.
        title: one line on what it is.
        licence: one line.
        how_to_get: one line for those who do not have it.
        options: keyword arguments of `find` -> values allowed; empty: whatever has the type.
        origin: in what form it was found, such as "idx files".
        folder: absolute folder of the files.
        class_names: names of the classes, in the order of their indices.
        channels: 1 or 3.
        white: grey value of 16-bit grey images that becomes 255.
    """

    name: str
    title: str
    licence: str
    how_to_get: str
    options: ClassVar[dict[str, tuple[str, ...]]] = {}

    origin: str
    folder: str
    class_names: tuple[str, ...]
    channels: int
    white: int = WHITE

    @classmethod
    def tfds_keys(cls, **options: Any) -> tuple[str, str, str | None]:
        """Names of TFDS's features of the image, of its label and, if any, of its group."""
        del options
        return "image", "label", None

    @property
    def table(self) -> Table:
        """What became of the files of a folder; empty where files hold many images."""
        return Table()

    @property
    def infos(self) -> list[Info]:
        """What the headers of the image files say; empty where files hold many images."""
        return []

    @property
    def warnings(self) -> list[str]:
        """Sentences about the data that the user must know."""
        return []

    @classmethod
    @abc.abstractmethod
    def find(cls, data_dir: str | None = None, **options: Any) -> "Source | None":
        """The data set where it lies on this machine; `None` if it does not.

        Args:
            data_dir: folder to look in, and in no other; `None`: wherever the source looks.
            **options: see `options`.

        Raises:
            UserError: if `data_dir` is given and does not hold the data set.
        """

    @abc.abstractmethod
    def labels(self) -> dict[str, np.ndarray]:
        """Part -> labels, int64, shape (N,), indices into `class_names`.

        The parts are `train` and, where the data set has one, `test`. Reads no image.

        Raises:
            UserError: if a file is missing or broken.
        """

    @abc.abstractmethod
    def stored(self, part: str, start: int, stop: int) -> Iterator[Stored]:
        """Images `start` to `stop` of a part as they are stored, in constant memory.

        Yields:
            uint8 array, shape (H, W, channels); or the content of an image file; or what stands
            for an image that cannot be read.

        Raises:
            UserError: if a file is missing or broken.
        """

    @abc.abstractmethod
    def verify(self) -> None:
        """Reads all there is to check: checksums where known, headers, sizes.

        Raises:
            UserError: naming the first file that is broken.
        """

    def read(
        self, part: str, start: int, stop: int, image_size: tuple[int, int] | None = None
    ) -> Iterator[np.ndarray | UnreadableImage]:
        """Images `start` to `stop` of a part, in the order of `labels`, in constant memory.

        Args:
            part: name of the part.
            start: place of the first image.
            stop: place behind the last one.
            image_size: height and width to which the images are resized; `None`: as they are.

        Yields:
            uint8, shape (H, W, channels); or what stands for an image that cannot be decoded.

        Raises:
            UserError: if a file is missing or broken.
        """
        images = self.stored(part, start, stop)
        yield from to_pixels(images, image_size, self.channels, self.white)

    def mask(self, part: str, place: int) -> np.ndarray | None:
        """Where an image is anomalous, bool (H, W); `None` if there is no mask.

        Raises:
            UserError: if the mask cannot be read.
        """
        del part, place
        return None

    def index(self) -> Index:
        """Labels and digests of all images; reads every image once.

        Raises:
            UserError: if a file is missing or broken.
        """
        parts = {}
        for name, labels in self.labels().items():
            images = self.stored(name, 0, len(labels))
            digests = [hashlib.sha256(np.asarray(image).tobytes()).digest() for image in images]
            parts[name] = Part.of(labels, digests, groups=self.groups(name))
        return Index(self.class_names, self.channels, self.white, parts)

    def groups(self, part: str) -> np.ndarray | None:
        """Groups of images that must go into one split, int (N,); `None`: there are none."""
        del part
        return None

    def adopt(self, index: Index) -> None:
        """Takes what an earlier look at the data found, so that it is not looked at again."""
        del index
