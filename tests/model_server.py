"""A stand-in for tensorflow_model_server: the same flags, the same REST and gRPC messages.

It runs the real SavedModel by its signatures, after replaying its warm-up requests. What is
refused, and in which words, follows TensorFlow Serving's sources.
"""

import argparse
import base64
import binascii
import json
import os
import re
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)


class Refused(Exception):
    """With the gRPC code and the HTTP status of the refusal."""

    def __init__(self, message, code=grpc.StatusCode.INVALID_ARGUMENT, status=400):
        super().__init__(message)
        self.code, self.status = code, status


class Model:
    """The newest version below `base_path`."""

    def __init__(self, name, base_path):
        self.name = name
        self.version = max(int(entry) for entry in os.listdir(base_path) if entry.isdecimal())
        folder = os.path.join(base_path, str(self.version))
        self.loaded = tf.saved_model.load(folder)
        warmup = os.path.join(folder, "assets.extra", "tf_serving_warmup_requests")
        for record in tf.data.TFRecordDataset(warmup).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            self.run(request.model_spec.signature_name, inputs)

    def signature(self, model_name, signature_name):
        if model_name != self.name:
            raise Refused(
                f"Servable not found for request: Latest({model_name})",
                grpc.StatusCode.NOT_FOUND,
                404,
            )
        name = signature_name or "serving_default"
        if name not in self.loaded.signatures:
            raise Refused(f'Serving signature name: "{name}" not found in signature def')
        return name

    def inputs(self, signature):
        return self.loaded.signatures[signature].structured_input_signature[1]

    def run(self, signature, inputs):
        expected = self.inputs(signature)
        if inputs.keys() != expected.keys():
            raise Refused(f"input size does not match signature: expected {sorted(expected)}")
        try:
            tensors = {name: tf.constant(inputs[name], expected[name].dtype) for name in expected}
        except (TypeError, ValueError) as error:
            raise Refused(f"Inputs are not of the expected type: {sorted(expected)}") from error
        try:
            outputs = self.loaded.signatures[signature](**tensors)
        except tf.errors.InvalidArgumentError as error:
            raise Refused(error.message) from error
        return {name: value.numpy() for name, value in outputs.items()}


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model):
        self.model = model

    def Predict(self, request, context):
        try:
            spec = request.model_spec
            signature = self.model.signature(spec.name, spec.signature_name)
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            outputs = self.model.run(signature, inputs)
        except Refused as error:
            context.abort(error.code, str(error))
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, model):
        self.model = model

    def GetModelStatus(self, request, context):
        if request.model_spec.name != self.model.name:
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
        status = get_model_status_pb2.ModelVersionStatus(
            version=self.model.version, state=get_model_status_pb2.ModelVersionStatus.AVAILABLE
        )
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=[status])


class RestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = None

    def do_GET(self):
        available = self.path == f"/v1/models/{self.model.name}"
        version = {"version": str(self.model.version), "state": "AVAILABLE"}
        if available:
            self._answer(200, {"model_version_status": [version]})
        else:
            self._answer(404, {"error": "Malformed request: GET " + self.path})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self._answer(200, self._predict(body))
        except Refused as error:
            self._answer(error.status, {"error": str(error)})

    def _predict(self, body):
        match = re.fullmatch(r"/v1/models/([^/:]+):predict", self.path)
        if not match:
            raise Refused(f"Malformed request: POST {self.path}", status=404)
        try:
            request = json.loads(body)
        except ValueError:
            raise Refused("JSON Parse error: Invalid value.") from None
        if not isinstance(request, dict) or ("inputs" in request) == ("instances" in request):
            raise Refused("Request must have either 'inputs' or 'instances'")
        signature = self.model.signature(match[1], request.get("signature_name"))
        names = list(self.model.inputs(signature))
        by_row = "instances" in request
        values = request["instances" if by_row else "inputs"]
        if not isinstance(values, dict):
            values = {names[0]: values}
        outputs = self.model.run(signature, {name: _decoded(v) for name, v in values.items()})
        columns = {name: _json(value) for name, value in outputs.items()}
        if not by_row:
            return {"outputs": columns}
        rows = zip(*columns.values(), strict=True)
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}

    def _answer(self, status, content):
        body = json.dumps(content, indent=4).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def _decoded(value):
    """JSON with {"b64": ...} as arrays or bytes."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, dict):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise Refused(f"JSON Value: {value} not formatted correctly for base64 data") from None
    return value


def _json(value):
    if value.dtype == object:
        return [text.decode() for text in value]
    if value.dtype == bool:
        return value.tolist()
    # The shortest decimals that are the same float32.
    return np.array([float(str(number)) for number in value.flat]).reshape(value.shape).tolist()


def main():
    parser = argparse.ArgumentParser()
    for flag, kind in (
        ("--port", int),
        ("--rest_api_port", int),
        ("--model_name", str),
        ("--model_base_path", str),
    ):
        parser.add_argument(flag, type=kind, required=True)
    flags = parser.parse_args()
    model = Model(flags.model_name, flags.model_base_path)

    server = grpc.server(
        futures.ThreadPoolExecutor(8),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(model), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(model), server)
    server.add_insecure_port(f"127.0.0.1:{flags.port}")
    server.start()
    RestHandler.model = model
    http = ThreadingHTTPServer(("127.0.0.1", flags.rest_api_port), RestHandler)
    http.request_queue_size = 128
    http.serve_forever()


if __name__ == "__main__":
    main()
