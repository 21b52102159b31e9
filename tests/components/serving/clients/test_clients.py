import contextlib
import gzip
import http.server
import itertools
import json
import socket
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from components.data.pixels import decoder_reason
from components.serving import clients
from components.serving.clients import base, rest
from components.serving.rows import rows
from components.serving.runner import newest_version
from models.errors import UserError


@pytest.fixture(params=["local", "rest", "grpc"])
def client(request, pushed, model_server):
    if request.param == "local":
        return clients.local(str(pushed.serving))
    return clients.remote(getattr(model_server, request.param), "capsad", timeout=60)


@pytest.fixture
def few_pauses(monkeypatch):
    monkeypatch.setattr(base, "_FIRST_PAUSE", 0.01)


@pytest.mark.parametrize("count", [1, 2, 33])
def test_batches_of_any_size(client, count, pushed, toys, to_png):
    images, _ = toys(count, 3, seed=7)
    scores = client.score([to_png(image) for image in images])
    expected = {name: np.asarray(value) for name, value in pushed.scorer(images).items()}
    del expected["reconstruction"]
    assert scores.keys() == {*expected, "most_similar_class", "least_alpha", "flagged"}
    assert scores["flagged"].tolist() == [s > np.float32(0.95) for s in expected["anomaly_score"]]
    for name, values in expected.items():
        assert scores[name].dtype == np.float32
        np.testing.assert_allclose(scores[name], values, atol=1e-5, err_msg=name)
    names = np.array(["bolt", "nut", "größe"])
    expected = names[expected["class_probabilities"].argmax(-1)]
    assert scores["most_similar_class"].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda png: b"", "The image is not JPEG, PNG, GIF or BMP: convert it, .*"),
        (lambda png: b"RIFFxxxxWEBP", "The image is not JPEG, PNG, GIF or BMP: convert it, .*"),
        (lambda png: png[:60], "Invalid PNG data, size 60"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason_alone(client, bad, reason, toys, to_png):
    good = to_png(toys(1, 3, seed=0)[0][0])
    with pytest.raises(base.Refused, match=f"^{reason}$"):
        client.score([good, bad(good)])
    assert len(client.score([good])["pp"]) == 1


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("{{function_node __inference_f_1}} Input is empty.\n\t [[{{node a}}]]", "Input is empty."),
        ("Graph execution error:\n\nDetected at\nToo bad.\n\t [[{{node a}}]] [Op:b]", "Too bad."),
        ("failed to connect", "failed to connect"),
        ("Detected at a\nassertion failed: [Convert it.]\n\t [[{{node a}}]] [Op:b]", "Convert it."),
    ],
)
def test_errors_of_tensorflow_in_one_line(message, line):
    assert decoder_reason(message) == line


def unused_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_not_there(scheme, few_pauses):
    url = f"{scheme}://127.0.0.1:{unused_port()}"
    with pytest.raises(UserError, match=f"^{url} cannot be reached .*after 5 attempts") as error:
        clients.remote(url, "capsad", timeout=10).score([b"x"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_model_that_is_not_served(protocol, model_server):
    client = clients.remote(getattr(model_server, protocol), "other", timeout=60)
    with pytest.raises(UserError, match="has no model 'other': ") as raised:
        client.score([b"x"])
    assert raised.value.settings == ("model_name",)


@pytest.mark.parametrize(
    "url", ["localhost:8501", "ftp://host:1", "http://", "grpc://host", "http://host:port", ""]
)
def test_urls_of_another_form(url):
    with pytest.raises(UserError, match="must be http://HOST:PORT or grpc://HOST:PORT") as raised:
        clients.remote(url, "capsad", timeout=1)
    assert raised.value.settings == ("url",)


NO_SIGNATURE = 'Serving signature name: "score_images" not found in signature def'


class FakeServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Gives prepared answers by either protocol: "ok", "wait", "html", or an error."""

    def __init__(self, answers):
        self.answers = list(answers)
        # All that is INVALID_ARGUMENT here is another model's signature.
        self.reason = NO_SIGNATURE if self.answers[0] in (400, "INVALID_ARGUMENT") else "no reason"
        self.requests = 0
        self.released = threading.Event()

    def next(self):
        self.requests += 1
        return self.answers.pop(0)

    def Predict(self, request, context):
        answer = self.next()
        if answer == "wait":
            self.released.wait()
        elif answer != "ok":
            context.abort(getattr(grpc.StatusCode, answer), self.reason)
        response = predict_pb2.PredictResponse()
        response.outputs["pp"].CopyFrom(tf.make_tensor_proto([0.5]))
        return response


@pytest.fixture
def fake(few_pauses):
    """Starts such a server; returns it and its URL."""
    stops = []

    def start(scheme, *answers):
        server = FakeServer(answers)
        stops.append(server.released.set)
        if scheme == "grpc":
            served = grpc.server(futures.ThreadPoolExecutor(2))
            prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(server, served)
            port = served.add_insecure_port("127.0.0.1:0")
            served.start()
            stops.append(lambda: served.stop(0))
        else:

            class Handler(http.server.BaseHTTPRequestHandler):
                def do_POST(self):
                    self.rfile.read(int(self.headers["Content-Length"]))
                    answer = server.next()
                    if answer == "wait":
                        server.released.wait()
                    status, body = 200, {"outputs": {"pp": [0.5]}}
                    if isinstance(answer, int):
                        status, body = answer, {"error": server.reason}
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(b"<html>" if answer == "html" else json.dumps(body).encode())

                def log_message(self, *arguments):
                    pass

            served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            port = served.server_address[1]
            threading.Thread(target=served.serve_forever).start()
            stops.append(served.shutdown)
        return server, f"{scheme}://127.0.0.1:{port}"

    yield start
    for stop in stops:
        stop()


@pytest.mark.parametrize(
    ("scheme", "answers"),
    [
        ("http", (503, 429, 503, 503, "ok")),
        ("grpc", ("UNAVAILABLE", "UNAVAILABLE", "ok")),
    ],
)
def test_an_unavailable_server_is_tried_again(scheme, answers, fake):
    server, url = fake(scheme, *answers)
    scores = clients.remote(url, "capsad", timeout=10).score([b"x"])
    assert scores["pp"].tolist() == [0.5]
    assert server.requests == len(answers)


@pytest.mark.parametrize(
    ("scheme", "answers", "message"),
    [
        ("http", [503] * 9, r"overloaded, after 5 attempts \(HTTP status 503\)"),
        ("grpc", ["UNAVAILABLE"] * 9, r"overloaded, after 5 attempts \(no reason\)"),
    ],
)
def test_attempts_are_limited(scheme, answers, message, fake):
    server, url = fake(scheme, *answers)
    with pytest.raises(UserError, match=message):
        clients.remote(url, "capsad", timeout=10).score([b"x"])
    assert server.requests == 5


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_deadline(scheme, fake):
    server, url = fake(scheme, "wait")
    with pytest.raises(UserError, match=r"did not answer within 0.2 s: ") as raised:
        clients.remote(url, "capsad", timeout=0.2).score([b"x"])
    assert raised.value.settings == ("timeout",)
    assert server.requests == 1


@pytest.mark.parametrize(
    ("scheme", "answer", "message"),
    [
        ("http", 500, "failed on model 'capsad': no reason"),
        ("http", 400, f"failed on model 'capsad': {NO_SIGNATURE}"),
        ("grpc", "INVALID_ARGUMENT", f"failed on model 'capsad': {NO_SIGNATURE}"),
        ("http", "html", "not an answer of TensorFlow Serving"),
        ("grpc", "INTERNAL", "failed on model 'capsad': no reason"),
    ],
)
def test_other_errors_end_at_once(scheme, answer, message, fake):
    server, url = fake(scheme, answer)
    with pytest.raises(UserError, match=message):
        clients.remote(url, "capsad", timeout=10).score([b"x"])
    assert server.requests == 1


ANSWER = {
    "outputs": {
        "anomaly_score": [0.5],
        "most_similar_class": ["bolt"],
        "pp": [0.25],
        "reconstruction": [[[0.0]]],
    }
}


@pytest.fixture
def raw(few_pauses):
    """Starts a server that sends what a function of the connection yields; returns its URL."""
    servers = []

    def start(answer):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.recv(1 << 20)
                    for part in answer():
                        connection.sendall(part)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 20):
                        pass

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


def slow_head():
    for byte in itertools.chain(HEAD, itertools.repeat(b"x"[0])):
        yield bytes([byte])
        time.sleep(0.05)


def slow_body():
    yield HEAD + b"\r\n"
    while True:
        yield b" "
        time.sleep(0.05)


def silent_body():
    yield HEAD + b"\r\n "
    time.sleep(5)


def endless_body():
    yield HEAD + b"\r\n"
    while True:
        yield b" " * 65536


def bomb():
    yield HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * (64 << 20))


@pytest.mark.parametrize("answer", [slow_head, slow_body, silent_body])
def test_no_drip_outlasts_the_deadline(answer, raw):
    started = time.monotonic()
    with pytest.raises(UserError, match="did not answer within 0.5 s"):
        clients.remote(raw(answer), "capsad", timeout=0.5).score([b"x"])
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("answer", [endless_body, bomb])
def test_no_answer_fills_the_memory(answer, raw, monkeypatch):
    monkeypatch.setattr(base, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(rest, "MOST_BYTES", 1 << 20)
    with pytest.raises(UserError, match="answer is larger than 1 MiB"):
        clients.remote(raw(answer), "capsad", timeout=20).score([b"x"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"outputs": [0.5]}',
        b'{"outputs": {"pp": 0.5}}',
        b'{"outputs": {"pp": [0.5, 0.6]}}',
        b'{"outputs": {"pp": [[0.5], [0.5, 0.6]]}}',
        b'{"outputs": {"pp": [null]}}',
        b'{"outputs": {"pp": [{"b64": "eA=="}]}}',
        b'{"outputs": {"pp": [true]}}',
        b'{"outputs": {"pp": [1e999999, "x"]}}',
        b'{"outputs": {"pp": [%d]}}' % 10**40,
    ],
)
def test_answers_of_another_form_are_one_sentence(body, raw):
    with pytest.raises(UserError, match="failed on model 'capsad': ") as raised:
        clients.remote(raw(lambda: [HEAD + b"\r\n", body]), "capsad", timeout=5).score([b"x"])
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 450


def test_a_long_message_of_a_server_is_cut(raw):
    body = json.dumps({"error": "no\x1b[31m" * 10_000}).encode()
    answer = [b"HTTP/1.1 500 Bad\r\nConnection: close\r\n\r\n", body]
    with pytest.raises(UserError, match=r": no \[31mno \[31m") as raised:
        clients.remote(raw(lambda: answer), "capsad", timeout=5).score([b"x"])
    assert len(str(raised.value)) < 450


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-0.1", "1.5"])
def test_a_score_that_is_none_is_not_shown(score, raw):
    body = json.dumps(ANSWER).replace("[0.5]", f"[{score}]").encode()
    outputs = clients.remote(raw(lambda: [HEAD + b"\r\n", body]), "capsad", timeout=5).score([b"x"])
    with pytest.raises(UserError, match=r"as anomaly_score of a\.png, which is not between 0"):
        list(rows(["a.png"], outputs, 0.05))
    with pytest.raises(UserError, match="no outputs"):
        list(rows(["a.png"], {**outputs, "anomaly_score": np.array(["x"])}, 0.05))


def test_the_newest_version_is_taken(tmp_path):
    for version in ("9", "10", ".incoming/11", "backup"):
        (tmp_path / "serving" / version).mkdir(parents=True)
        (tmp_path / "serving" / version / "saved_model.pb").touch()
    (tmp_path / "serving" / "12").mkdir()
    newest = tmp_path / "serving" / "10"
    for given in (tmp_path, tmp_path / "serving", newest):
        assert newest_version(str(given)) == str(newest)
    with pytest.raises(UserError, match="holds no pushed model"):
        newest_version(str(tmp_path / "serving" / "12"))


def test_a_foreign_saved_model(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(UserError, match="has no assets.extra/SHA256SUMS: give a whole one"):
        clients.local(str(tmp_path))
