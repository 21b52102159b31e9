"""The interface of a source."""

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np


@dataclass(frozen=True)
class UnreadableImage:
    """Stands for an image that cannot be decoded."""

    path: str
    reason: str


class Source(abc.ABC):
    """A labelled image data set in files of one folder.

    It pickles to its settings and file names, so that Beam workers read it in parallel.

    Attributes:
        name: of the data set, as in `sources.get`.
        title: one line on what it is.
        licence: one line.
        how_to_get: one line for those who do not have it.
        options: keyword arguments of `find` -> values allowed.
        origin: in what form it was found, such as "idx files".
        folder: absolute folder of the files.
        pattern: glob relative to `folder` that matches the files read.
        class_names: names of the classes, in the order of their indices.
        channels: 1 or 3.
        image_shape: height and width of every image; `None` if they vary.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    how_to_get: ClassVar[str]
    options: ClassVar[dict[str, tuple[str, ...]]] = {}

    origin: str
    folder: str
    pattern: str
    class_names: tuple[str, ...]
    channels: int
    image_shape: tuple[int, int] | None

    @classmethod
    @abc.abstractmethod
    def find(cls, data_dir: str | None = None, **options: str) -> Self | None:
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
    def read(self, part: str, start: int, stop: int) -> Iterator[np.ndarray | UnreadableImage]:
        """Images `start` to `stop` of a part, in the order of `labels`, in constant memory.

        Yields:
            uint8, shape (H, W, channels); or what stands for an image that cannot be decoded.

        Raises:
            UserError: if a file is missing or broken.
        """

    @abc.abstractmethod
    def verify(self) -> None:
        """Reads all there is to check: checksums where known, headers, sizes.

        Raises:
            UserError: naming the first file that is broken.
        """
