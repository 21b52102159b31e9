"""The walk over a folder of images, the same for training and for scoring."""

import os
from collections.abc import Iterator

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp")


def is_image(name: str) -> bool:
    """Whether a file is named like an image."""
    return name.lower().endswith(SUFFIXES)


def walk(folder: str, deep: bool = True) -> Iterator[str]:
    """Paths of the files in a folder, in order of name; hidden files and folders are left out.

    Args:
        folder: path of the folder.
        deep: whether the folders in it are walked too.
    """
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if deep and not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(parent, name)
