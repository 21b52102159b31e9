"""The interface of all clients, and the code that they share."""

import abc
import copy
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from models.errors import UserError
from models.score_names import FLAGGED

INPUT = "images"
ATTEMPTS = 5
MOST_BYTES = 512 * 1024**2
"""Largest answer of a server, in bytes after decompression."""
_LONGEST_MESSAGE = 300
# A batch is limited in both, because large images need much memory for features.
_MOST_IMAGES, _MOST_PIXELS = 100, 40 * 224 * 224
_FIRST_PAUSE = 0.25  # seconds; each pause is twice as long as the one before


class Refused(ValueError):
    """Raised if at least one image of a batch cannot be decoded."""


class Unavailable(ConnectionError):
    """Raised if the server cannot be reached or is overloaded. It may answer later."""


class Client(abc.ABC):
    """Base class of clients, which score encoded images.

    Args:
        pictures: whether outputs with a value for each pixel or patch are wanted, too.
    """

    def __init__(self, pictures: bool = False):
        self.signature = "explain_images" if pictures else "score_images"

    @abc.abstractmethod
    def score(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Computes all outputs of the model's signature `score_images` or `explain_images`.

        Args:
            images: at least one encoded PNG, JPEG, GIF or BMP, each of any size.

        Returns:
            Name of each output -> float32 or str array, with the images along the first axis.

        Raises:
            Refused: if an image cannot be decoded.
            UserError: if the model cannot be reached, or if it is not one of ours.
        """


class LocalClient(Client):
    """Base class of clients that run a model in this process."""

    def with_pictures(self, pictures: bool) -> Self:
        """Returns a client of the same model, see `Client`."""
        client = copy.copy(self)
        Client.__init__(client, pictures)
        return client

    def score_arrays(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Scores decoded images in batches.

        Args:
            images: uint8 array, shape (N, H, W, K), N >= 1, with K as in training.

        Returns:
            Name of each output -> float32 or str array whose first axis has length N.
        """
        _, height, width, _ = images.shape
        size = min(_MOST_IMAGES, max(1, _MOST_PIXELS // (height * width)))
        batches = [self.score_batch(images[start:][:size]) for start in range(0, len(images), size)]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    @abc.abstractmethod
    def score_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Scores a batch of decoded images, see `score_arrays`."""

    @abc.abstractmethod
    def metadata(self) -> dict[str, Any]:
        """What is known of the model, see the signature `metadata` of `export`."""


class RemoteClient(Client):
    """Base class of clients of a server. It repeats a request while the server is unavailable.

    Args:
        url: address of the server.
        model_name: name under which the model is served.
        timeout: largest duration of one request, in seconds.
        pictures: as for `Client`.
    """

    def __init__(self, url: str, model_name: str, timeout: float, pictures: bool = False):
        super().__init__(pictures)
        self.url = url
        self.model_name = model_name
        self.timeout = timeout

    def score(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Scores encoded images, see `Client`."""
        attempt = 1
        while True:
            try:
                return self._checked(self._in_time(lambda: self.request(images)), len(images))
            except Unavailable as error:
                if attempt == ATTEMPTS:
                    raise UserError(
                        f"{self.url} cannot be reached or is overloaded, after {ATTEMPTS} "
                        f"attempts ({error}): is TensorFlow Serving running there?"
                    ) from error
                time.sleep(_FIRST_PAUSE * 2 ** (attempt - 1))
                attempt += 1

    @abc.abstractmethod
    def request(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Makes one attempt. It raises `Unavailable` if another attempt may succeed."""

    def _in_time(self, request: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Calls `request` with a limit on its whole duration.

        Libraries limit only the time between two bytes, so a slow drip would never end.
        """
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(request())
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        # The libraries' own limits come first, if they work.
        thread.join(self.timeout + 1)
        if not outcome:
            raise self.deadline_exceeded()
        (result,) = outcome
        if isinstance(result, BaseException):
            raise result
        return result

    def _checked(self, outputs: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """Returns `outputs` if each has one value for each of `count` images."""
        for name, values in outputs.items():
            if values.dtype.kind == "b" and name != FLAGGED:
                raise self.failed(f"its output '{name}' holds neither numbers nor texts")
            if values.shape[:1] != (count,):
                raise self.failed(
                    f"its output '{name}' has the shape {values.shape} for {count} images"
                )
        return outputs

    def deadline_exceeded(self) -> UserError:
        """Returns the error for a request that took too long."""
        return UserError(
            f"{self.url} did not answer within {self.timeout:g} s: is the server overloaded? "
            "A longer time limit may help.",
            "timeout",
        )

    def model_unknown(self) -> UserError:
        """Returns the error for a model that the server does not have."""
        return UserError(
            f"The server at {self.url} has no model '{self.model_name}': give the name under "
            "which the model is served.",
            "model_name",
        )

    def failed(self, message: str) -> UserError:
        """Returns the error for any other answer."""
        line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
        short = line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]} ..."
        return UserError(f"The server at {self.url} failed on model '{self.model_name}': {short}")

    def too_large(self) -> UserError:
        """Returns the error for an answer above `MOST_BYTES`."""
        return self.failed(f"its answer is larger than {MOST_BYTES // 1024**2} MiB")


def as_array(values: np.ndarray | Sequence) -> np.ndarray:
    """Makes an array. Floats become float32, and texts, which are bytes in TensorFlow, str.

    Raises:
        ValueError: if there is anything but numbers and texts, or rows differ in length.
    """
    array = np.asarray(values)
    if array.dtype == object:
        if not all(isinstance(text, bytes) for text in array.flat):
            raise ValueError("Neither numbers nor texts.")
        return np.array([text.decode() for text in array.flat]).reshape(array.shape)
    if array.dtype.kind not in "fiubU":
        raise ValueError(f"Neither numbers nor texts, but {array.dtype}.")
    return array.astype("float32") if array.dtype.kind == "f" else array
