"""Chooses which of the two tested sets of versions suits this machine.

This needs no installed library. As a script, it prints the NAME of `requirements/NAME.txt`, or it
fails with one sentence.
"""

import platform
import sys

# The wheels of ml-metadata and TFDV for TFX 1.21 need this version of glibc.
_NEW_GLIBC = (2, 39)
_OLD, _NEW = "tfx-1.16", "tfx-1.21"
_PYTHONS = {_OLD: ((3, 11), (3, 11)), _NEW: ((3, 12), (3, 13))}


def choose() -> str:
    """Returns the name of the set of versions.

    Raises:
        RuntimeError: if no set suits this machine or this Python.
    """
    library, version = platform.libc_ver()
    if library != "glibc":
        raise RuntimeError(
            f"TFX has wheels only for Linux with glibc, not for {platform.system()} with "
            f"{library or 'no glibc'}: use a container, see BUILD.md."
        )
    stack = _NEW if tuple(map(int, version.split("."))) >= _NEW_GLIBC else _OLD
    lowest, highest = _PYTHONS[stack]
    if not lowest <= sys.version_info[:2] <= highest:
        wanted = " to ".join(
            dict.fromkeys(f"{major}.{minor}" for major, minor in (lowest, highest))
        )
        raise RuntimeError(
            f"With glibc {version}, Python {wanted} is needed, not {platform.python_version()}: "
            "install it and run `make setup PYTHON=python3.x`, see BUILD.md."
        )
    return stack


if __name__ == "__main__":
    try:
        print(choose())
    except RuntimeError as error:
        sys.exit(f"Error: {error}")
