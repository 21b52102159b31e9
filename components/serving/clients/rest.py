"""Scoring through TensorFlow Serving's REST interface."""

import base64
import json
import time
from collections.abc import Sequence
from urllib.parse import quote

import numpy as np
import requests

from components.data.pixels import decoder_reason
from components.serving.clients.base import (
    INPUT,
    MOST_BYTES,
    Refused,
    RemoteClient,
    Unavailable,
    as_array,
)

_CHUNK = 64 * 1024


class RestClient(RemoteClient):
    """Posts to `URL/v1/models/NAME:predict`."""

    def __init__(self, url: str, model_name: str, timeout: float, pictures: bool = False):
        super().__init__(url, model_name, timeout, pictures)
        self._session = requests.Session()
        self._endpoint = f"{url.rstrip('/')}/v1/models/{quote(model_name, safe='')}:predict"

    def request(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Makes one attempt, see `RemoteClient`."""
        encoded = [{"b64": base64.b64encode(image).decode()} for image in images]
        started = time.monotonic()
        try:
            response = self._session.post(
                self._endpoint,
                json={"signature_name": self.signature, "inputs": {INPUT: encoded}},
                timeout=self.timeout,
                allow_redirects=False,
                stream=True,
            )
            with response:
                content = bytearray()
                for chunk in response.iter_content(_CHUNK):
                    content += chunk
                    if len(content) > MOST_BYTES:
                        raise self.too_large()
                    if time.monotonic() - started > self.timeout:
                        raise self.deadline_exceeded()
        except requests.Timeout:
            raise self.deadline_exceeded() from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            if time.monotonic() - started >= self.timeout:  # between two bytes of the answer
                raise self.deadline_exceeded() from None
            raise Unavailable("no connection") from error
        except requests.RequestException as error:
            raise self.failed(str(error)) from error
        if response.status_code in (429, 503):
            raise Unavailable(f"HTTP status {response.status_code}")
        try:
            answer = json.loads(content)
            if response.ok:
                return {name: as_array(values) for name, values in answer["outputs"].items()}
            message = decoder_reason(answer["error"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self.failed(
                f"HTTP status {response.status_code}, and not an answer of TensorFlow Serving"
            ) from None
        if response.status_code == 404:
            raise self.model_unknown()
        if response.status_code != 400 or "signature" in message:
            raise self.failed(message)
        raise Refused(message)
