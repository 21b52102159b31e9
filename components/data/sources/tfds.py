"""Data sets that TensorFlow Datasets has prepared, or can download."""

import glob
import hashlib
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from components.data.index import Index, Part
from components.data.sources.base import Source
from models.errors import UserError


def data_dir() -> str:
    """The folder where TFDS keeps its data sets."""
    return os.environ.get("TFDS_DATA_DIR") or str(Path.home() / "tensorflow_datasets")


def prepared(root: Path, name: str) -> str | None:
    """Folder of the newest prepared version of a data set in TFDS's folder `root`, if any."""
    found = glob.glob("*/dataset_info.json", root_dir=root / name)
    versions = sorted((root / name / path).parent for path in found)
    return str(versions[-1]) if versions else None


def download(source: type[Source], **options: str) -> "TfdsSource":
    """Downloads and prepares a data set by TFDS, which verifies its checksums.

    Raises:
        UserError: if that fails, as without a network.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(source.name)
        _check_network(builder.url_infos)
        builder.download_and_prepare()
    except Exception as error:  # TFDS lets through whatever its many parts raise
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"The data set '{source.name}' is not on this machine, and its download by TFDS "
            f"failed ({type(error).__name__}: {reason}). {source.how_to_get}"
        ) from error
    return TfdsSource(source, str(builder.data_dir), **options)


def _check_network(urls: Iterable[str]) -> None:
    """Raises at once without a network: TFDS itself would try for minutes."""
    if urllib.request.getproxies():  # names are resolved elsewhere
        return
    for host in {urllib.parse.urlsplit(url).hostname for url in urls}:
        socket.getaddrinfo(host, 443)


class TfdsSource(Source):
    """A data set prepared by TFDS, standing for the source of the same name.

    Args:
        source: the source that it stands for.
        folder: of the prepared version.
        **options: of the source.
    """

    origin = "TFDS"

    def __init__(self, source: type[Source], folder: str, **options: str):
        self.name, self.title = source.name, source.title
        self.licence, self.how_to_get = source.licence, source.how_to_get
        self.class_names, self.channels = source.class_names, source.channels
        self.folder = folder
        self._image_key, self._label_key, self._group_key = source.tfds_keys(**options)

    @classmethod
    def find(cls, data_dir: str | None = None, **options: str) -> None:
        """Finds nothing: the sources themselves look for what TFDS prepared."""
        del data_dir, options

    @cached_property
    def image_shape(self) -> tuple[int, int]:
        """Height and width."""
        return tuple(self._builder().info.features[self._image_key].shape[:2])

    def labels(self) -> dict[str, np.ndarray]:
        """Part -> labels, int64, shape (N,)."""
        return {name: part.labels for name, part in self._parts.items()}

    def index(self) -> Index:
        """Labels and digests of all images, which stay encoded."""
        return Index(self.class_names, self.channels, self.white, self._parts)

    def stored(self, part: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """Images `start` to `stop`, uint8, shape (H, W, channels)."""
        for item in self._items(f"{part}[{start}:{stop}]"):
            yield item[self._image_key]

    def verify(self) -> None:
        """Reads every record, each of which carries its own checksum."""
        self.labels()

    @cached_property
    def _parts(self) -> dict[str, Part]:
        parts = {}
        for name in ("train", "test"):
            labels, digests, groups = [], [], []
            for item in self._items(name, decode=False):
                labels.append(item[self._label_key])
                digests.append(hashlib.sha256(bytes(item[self._image_key])).digest())
                if self._group_key in item:
                    groups.append([item[self._label_key], item[self._group_key]])
            grouped = np.unique(groups, axis=0, return_inverse=True)[1] if groups else None
            parts[name] = Part.of(np.array(labels), digests, groups=grouped)
        return parts

    def _builder(self) -> Any:
        import tensorflow_datasets as tfds

        try:
            return tfds.builder_from_directory(self.folder)
        except Exception as error:
            raise self._broken(error) from error

    def _items(self, split: str, decode: bool = True) -> Iterator[dict[str, np.ndarray]]:
        import tensorflow as tf
        import tensorflow_datasets as tfds

        builder = self._builder()
        images = [key for key in builder.info.features if key.startswith("image")]
        # What is not asked for stays encoded; `image` itself too, unless it is to be decoded.
        skipped = {
            key: tfds.decode.SkipDecoding()
            for key in images
            if not (decode and key == self._image_key)
        }
        # Without this, records of several files are mixed, and otherwise for a part of a split.
        in_order = tfds.ReadConfig(interleave_cycle_length=1)
        try:
            data = builder.as_dataset(split=split, decoders=skipped, read_config=in_order)
            yield from data.as_numpy_iterator()
        except (tf.errors.OpError, OSError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> UserError:
        reason = str(error).strip().split("\n")[0]
        return UserError(
            f"The data set that TFDS prepared in {self.folder} cannot be read ({reason}). "
            "Delete this folder and prepare it again."
        )
