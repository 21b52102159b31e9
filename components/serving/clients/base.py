"""The interface of all clients, and the code that they share."""

import abc
import time
from collections.abc import Sequence

import numpy as np

from models.errors import UserError

SIGNATURE, INPUT = "score_images", "images"
ATTEMPTS = 5
_FIRST_PAUSE = 0.25  # seconds; each pause is twice as long as the one before


class Refused(ValueError):
    """Raised if at least one image of a batch cannot be decoded."""


class Unavailable(ConnectionError):
    """Raised if the server cannot be reached or is overloaded. It may answer later."""


class Client(abc.ABC):
    """Base class of clients, which score encoded images."""

    @abc.abstractmethod
    def score(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Computes all outputs of the model's signature `score_images`.

        Args:
            images: at least one encoded PNG, JPEG, GIF or BMP, each of any size.

        Returns:
            Name of each output -> float32 or str array, with the images along the first axis.

        Raises:
            Refused: if an image cannot be decoded.
            UserError: if the model cannot be reached, or if it is not one of ours.
        """


class RemoteClient(Client):
    """Base class of clients of a server. It repeats a request while the server is unavailable.

    Args:
        url: address of the server.
        model_name: name under which the model is served.
        timeout: largest duration of one request, in seconds.
    """

    def __init__(self, url: str, model_name: str, timeout: float):
        self.url = url
        self.model_name = model_name
        self.timeout = timeout

    def score(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Scores encoded images, see `Client`."""
        attempt = 1
        while True:
            try:
                return self.request(images)
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
        return UserError(f"The server at {self.url} failed on model '{self.model_name}': {message}")


def as_array(values: np.ndarray | Sequence) -> np.ndarray:
    """Makes an array. Floats become float32, and texts, which are bytes in TensorFlow, str."""
    array = np.asarray(values)
    if array.dtype == object:
        return np.array([text.decode() for text in array])
    return array.astype("float32") if array.dtype.kind == "f" else array
