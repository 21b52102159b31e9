"""Many clients at once, some of them wrong."""

import base64
import itertools
import random
from concurrent import futures

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

_THREADS = 16
_ROUNDS = 25


def encoded(images):
    return [{"b64": base64.b64encode(image).decode()} for image in images]


@pytest.fixture
def call(model_server):
    """Sends a request by "rest" or "grpc": its outputs, or the message of its refusal."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(
        grpc.insecure_channel(model_server.grpc.removeprefix("grpc://"))
    )

    def send(protocol, images, signature="score_images", body=None):
        if protocol == "rest":
            json = {"signature_name": signature, "inputs": {"images": encoded(images)}}
            answer = requests.post(
                f"{model_server.rest}/v1/models/capsad:predict",
                **({"json": json} if body is None else {"data": body}),
                timeout=60,
            )
            content = answer.json()
            assert answer.status_code in (200, 400)
            return content["outputs"] if answer.ok else content["error"]
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "capsad"
        request.model_spec.signature_name = signature
        request.inputs["images"].CopyFrom(tf.make_tensor_proto(images, tf.string))
        try:
            outputs = stub.Predict(request, 60).outputs
        except grpc.RpcError as error:
            codes = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
            assert error.code() in codes
            return error.details()
        return {name: tf.make_ndarray(value) for name, value in outputs.items()}

    return send


def test_good_requests_are_answered_and_bad_ones_refused(call, pushed, model_server, toys, to_png):
    images, _ = toys(64, 3, seed=3)
    expected = {name: np.asarray(value) for name, value in pushed.scorer(images).items()}
    del expected["reconstruction"]
    pngs = [to_png(image) for image in images]

    def good(protocol, generator):
        chosen = generator.choices(range(len(images)), k=generator.randint(1, 20))
        outputs = call(protocol, [pngs[index] for index in chosen])
        for name, values in expected.items():
            np.testing.assert_allclose(outputs[name], values[chosen], atol=1e-5)

    def bad(words, **request):
        def check(protocol, generator):
            batch = generator.choices(pngs, k=3) + request.get("images", [])
            message = call(protocol, **{**request, "images": batch})
            assert isinstance(message, str), "a bad request was answered"
            assert any(word in message for word in words), message

        return check

    kinds = {
        "good": good,
        "not an image": bad(["not JPEG, PNG, GIF or BMP"], images=[b"not an image"]),
        "empty": bad(["not JPEG, PNG, GIF or BMP"], images=[b""]),
        "cut": bad(["PNG", "Invalid"], images=[pngs[0][:60]]),
        "wrong signature": bad(["no_such"], signature="no_such"),
        "of another type": bad(["uint8", "type"], signature="score_arrays"),
    }
    only_rest = {
        "not JSON": bad(["JSON"], body=b"{'inputs': [}"),
        "no inputs": bad(["inputs", "Missing"], body=b"{}"),
        "not base64": bad(["base64"], body=b'{"inputs": [{"b64": "?"}]}'),
    }
    works = [
        *itertools.product(["rest", "grpc"], [*kinds.items(), ("good", good), ("good", good)]),
        *itertools.product(["rest"], only_rest.items()),
    ] * _ROUNDS
    random.Random(0).shuffle(works)
    with futures.ThreadPoolExecutor(_THREADS) as pool:
        answers = [
            pool.submit(check, protocol, random.Random(seed))
            for seed, (protocol, (_, check)) in enumerate(works)
        ]
        for (protocol, (kind, _)), answer in zip(works, answers, strict=True):
            assert answer.exception() is None, f"{protocol}, {kind}: {answer.exception()}"
    assert model_server.process.poll() is None
    good("rest", random.Random(0))
