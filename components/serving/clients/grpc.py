"""Scoring through TensorFlow Serving's gRPC interface."""

from collections.abc import Sequence
from urllib.parse import urlsplit

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from components.data.pixels import decoder_reason
from components.serving.clients.base import (
    INPUT,
    MOST_BYTES,
    Refused,
    RemoteClient,
    Unavailable,
    as_array,
)

_OPTIONS = [
    # Reconstructions of large images exceed the default of 4 MB.
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_send_message_length", -1),
    # These are not longer than our own pauses. Otherwise gRPC would fail at once in our next
    # attempts, because it would still wait before it connects again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcClient(RemoteClient):
    """Calls `PredictionService.Predict`, without TLS."""

    def __init__(self, url: str, model_name: str, timeout: float, pictures: bool = False):
        super().__init__(url, model_name, timeout, pictures)
        channel = grpc.insecure_channel(urlsplit(url).netloc, _OPTIONS)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def request(self, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Makes one attempt, see `RemoteClient`."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model_name
        request.model_spec.signature_name = self.signature
        request.inputs[INPUT].CopyFrom(tf.make_tensor_proto(images, tf.string))
        try:
            response = self._service.Predict(request, self.timeout)
        except grpc.RpcError as error:
            raise self._explained(error.code(), decoder_reason(error.details())) from error
        try:
            return {
                name: as_array(tf.make_ndarray(value)) for name, value in response.outputs.items()
            }
        except (ValueError, TypeError) as error:
            raise self.failed(f"its answer cannot be read ({error})") from None

    def _explained(self, code: grpc.StatusCode, details: str) -> Exception:
        if code == grpc.StatusCode.UNAVAILABLE:
            return Unavailable(details)
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return self.deadline_exceeded()
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            return self.too_large()
        if code == grpc.StatusCode.NOT_FOUND:
            return self.model_unknown()
        if code == grpc.StatusCode.INVALID_ARGUMENT and "ignature" not in details:
            return Refused(details)
        return self.failed(details or code.name)
