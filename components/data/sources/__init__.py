"""Where images come from: one source a file, all behind the interface of `base`."""

import difflib
from typing import Any

from components.data.sources import tfds
from components.data.sources.base import Source
from components.data.sources.digits import Digits
from components.data.sources.fashion_mnist import FashionMnist
from components.data.sources.file_source import DATA_DIR_VARIABLE, FileSource
from components.data.sources.images import Images
from components.data.sources.mnist import Mnist
from components.data.sources.npz import Npz
from components.data.sources.smallnorb import SmallNorb
from models.errors import UserError

__all__ = ["DATA_DIR_VARIABLE", "FileSource", "Source", "describe", "find", "get", "names"]

_SOURCES = {source.name: source for source in (Digits, Mnist, FashionMnist, SmallNorb, Images, Npz)}


def names() -> tuple[str, ...]:
    """Names of all sources."""
    return tuple(_SOURCES)


def describe(name: str) -> type[Source]:
    """The class of source `name`.

    Raises:
        UserError: if there is none of that name.
    """
    if name not in _SOURCES:
        close = difflib.get_close_matches(name, _SOURCES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"Unknown source '{name}': there are {', '.join(_SOURCES)}.{hint}")
    return _SOURCES[name]


def find(name: str, data_dir: str | None = None, **options: Any) -> Source | None:
    """The source `name` where it lies on this machine; `None` if it does not.

    Args:
        name: of the source.
        data_dir: folder or file to look in, and in no other; `None`: wherever the source looks.
        **options: of the source, see `Source.options`.

    Raises:
        UserError: if the name or an option is unknown, or `data_dir` does not hold the source.
    """
    source = describe(name)
    for option, value in options.items():
        allowed = source.options.get(option)
        if allowed is None or (allowed and value not in allowed):
            known = "; ".join(f"{key}: {', '.join(of)}" for key, of in source.options.items() if of)
            raise UserError(
                f"The source '{name}' has no option {option}={value}: there are {known or 'none'}."
            )
    return source.find(data_dir, **options)


def get(name: str, data_dir: str | None = None, **options: Any) -> Source:
    """Likewise, but what is not on this machine is downloaded by TFDS, if TFDS has it.

    Raises:
        UserError: as `find`; or if the source cannot be had.
    """
    found = find(name, data_dir, **options)
    if found is not None:
        return found
    source = describe(name)
    if not issubclass(source, FileSource):
        raise UserError(f"The source '{name}' was not found. {source.how_to_get}")
    return tfds.download(source, **options)
