"""The entry point of the command `capsad`, which is small so that Ctrl-C finds it at once."""

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line; at Ctrl-C and SIGTERM it cleans up and ends without a traceback."""
    try:
        signal.signal(signal.SIGTERM, _stop)
        from pipeline.cli import main as capsad

        capsad()
    except KeyboardInterrupt:
        _stop(signal.SIGINT)
    sys.exit()


def _stop(number: int, frame: object = None) -> NoReturn:
    sys.exit(128 + number)  # as of a shell
