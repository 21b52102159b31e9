"""The one interface of all clients, and what they share."""

import abc
import re
import time
from collections.abc import Sequence

import numpy as np

from models.errors import UserError

SIGNATURE, INPUT = "score_images", "images"
ATTEMPTS = 5
_FIRST_PAUSE = 0.25  # seconds, doubled from attempt to attempt


class Refused(ValueError):
    """At least one of these images cannot be decoded."""


class Unavailable(ConnectionError):
    """The server cannot be reached or has too much to do; later it may answer."""


class Client(abc.ABC):
    """Scores encoded images."""

    @abc.abstractmethod
    def score(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Every output of the model's signature `score_images`.

        Args:
            images: encoded PNG, JPEG, GIF or BMP, at least one, of any sizes.

        Returns:
            Name -> float32 or str array whose first axis is that of the images.

        Raises:
            Refused: if an image cannot be decoded.
            UserError: if the model cannot be reached or is none of ours.
        """


class RemoteClient(Client):
    """Tries again, after longer and longer pauses, while the server is unavailable."""

    def __init__(self, url: str, model_name: str, timeout: float):
        self.url = url
        self.model_name = model_name
        self.timeout = timeout

    def score(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """As documented in `Client`."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self.request(images)
            except Unavailable as error:
                if attempt == ATTEMPTS:
                    raise UserError(
                        f"{self.url} cannot be reached or is overloaded, after {ATTEMPTS} "
                        f"attempts ({error}): is TensorFlow Serving running there?"
                    ) from error
                time.sleep(_FIRST_PAUSE * 2 ** (attempt - 1))

    @abc.abstractmethod
    def request(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """One attempt; raises `Unavailable` where another one may succeed."""

    def deadline_exceeded(self) -> UserError:
        """The error for a request that took too long."""
        return UserError(
            f"{self.url} did not answer within {self.timeout:g} s: is the server overloaded? "
            "A longer time limit may help.",
            "timeout",
        )

    def model_unknown(self) -> UserError:
        """The error for a model that the server does not have."""
        return UserError(
            f"The server at {self.url} has no model '{self.model_name}': give the name under "
            "which the model is served.",
            "model_name",
        )

    def failed(self, message: str) -> UserError:
        """The error for any other answer."""
        return UserError(f"The server at {self.url} failed on model '{self.model_name}': {message}")


def as_array(values: np.ndarray | Sequence) -> np.ndarray:
    """Floats as float32; text, which TensorFlow has as bytes, as str."""
    array = np.asarray(values)
    if array.dtype == object:
        return np.array([text.decode() for text in array])
    return array.astype("float32") if array.dtype.kind == "f" else array


def one_line(message: str) -> str:
    """What an error of TensorFlow says, without where in its graph that happened."""
    message = message.partition("\n\t [[")[0].rpartition("\n")[2]
    return re.sub(r"\{\{.*?\}\}", "", message).strip()[:300]
