"""Latency, memory and sizes of answers of a served model.

    python benchmarks/serving.py MODEL

MODEL is a run's output folder. The server is tensorflow_model_server if it is on the PATH, else the
stand-in of the tests, which runs the same model in Python. Each client sends one image, waits
for its scores, and sends the next. Writes docs/results/serving.md.
"""

import argparse
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from components.serving import clients
from components.serving.export import WARMUP_FILE
from components.serving.runner import newest_version
from pipeline.machine import describe

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "results" / "serving.md"
CLIENTS, SECONDS = (1, 8, 64), 20
REAL = "tensorflow_model_server"


class Server(NamedTuple):
    """A running server."""

    name: str
    rest: str
    grpc: str
    process: subprocess.Popen

    def memory(self) -> float:
        """Largest resident set so far, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextmanager
def serve(version: str) -> Iterator[Server]:
    """Serves the folder of a version alone."""
    name = REAL if shutil.which(REAL) else "stand-in"
    command = [REAL] if name == REAL else [sys.executable, str(ROOT / "tests" / "model_server.py")]
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as other:
        rest, grpc = one.getsockname()[1], other.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(os.path.abspath(version), os.path.join(folder, "1"))
        process = subprocess.Popen(
            [
                *command,
                f"--port={grpc}",
                f"--rest_api_port={rest}",
                "--model_name=capsad",
                f"--model_base_path={folder}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        url = f"http://127.0.0.1:{rest}"
        try:
            while True:
                time.sleep(0.2)
                try:
                    with urllib.request.urlopen(f"{url}/v1/models/capsad") as status:
                        if b"AVAILABLE" in status.read():
                            break
                except urllib.error.URLError:
                    if process.poll() is not None:
                        sys.exit("The server did not start.")
            yield Server(name, url, f"grpc://127.0.0.1:{grpc}", process)
        finally:
            process.terminate()
            process.wait()


def latencies(score: Callable[[], object], count: int) -> np.ndarray:
    """Seconds of each request of `count` clients, after a second in which they begin."""
    end = time.monotonic() + SECONDS
    found: list[float] = []

    def work() -> None:
        while (started := time.monotonic()) < end:
            score()
            if started > end - SECONDS + 1:
                found.append(time.monotonic() - started)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(found)


def image_of(version: str) -> bytes:
    """An image of the warm-up requests."""
    from tensorflow_serving.apis import prediction_log_pb2

    for record in tf.data.TFRecordDataset(os.path.join(version, WARMUP_FILE)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        if request.model_spec.signature_name == "score_images":
            return request.inputs["images"].string_val[0]
    raise ValueError("The model has no warm-up request for score_images.")


def answer_bytes(server: Server, signature: str, image: bytes) -> int:
    """Bytes of the answer to one image by REST."""
    body = {
        "signature_name": signature,
        "instances": [{"b64": base64.b64encode(image).decode()}],
    }
    request = urllib.request.Request(
        f"{server.rest}/v1/models/capsad:predict", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request) as answer:
        # The stand-in indents its answers as TensorFlow Serving does.
        return len(answer.read())


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a run's output folder")
    version = newest_version(parser.parse_args().model)
    image = image_of(version)
    rows = []
    with serve(version) as server:
        sizes = {
            name: answer_bytes(server, name, image) for name in ("score_images", "explain_images")
        }
        before = server.memory()
        for kind, url in (("REST", server.rest), ("gRPC", server.grpc)):
            client = clients.remote(url, "capsad", timeout=60)
            for count in CLIENTS:
                times = 1000 * latencies(lambda client=client: client.score([image]), count)
                rate = len(times) / (SECONDS - 1)
                middle, last = np.quantile(times, [0.5, 0.99])
                rows.append(f"| {kind} | {count} | {middle:.0f} | {last:.0f} | {rate:.0f} |")
                print(rows[-1], flush=True)
        after = server.memory()
    lines = [
        "# A served model",
        "",
        "    python benchmarks/serving.py RUN",
        "",
        f"The server is {server.name}. Each client sends one image of "
        f"{len(image)} bytes and waits for its scores.",
        "",
        "| | clients | median, ms | 99 % within, ms | images/s |",
        "|---|---:|---:|---:|---:|",
        *rows,
        "",
        f"Memory: {before:,.0f} MiB after loading, {after:,.0f} MiB at most. An image's answer by "
        f"REST has {sizes['score_images']:,} bytes from `score_images` and "
        f"{sizes['explain_images']:,} from `explain_images`.",
        "",
        f"{describe()}.",
        "",
    ]
    TABLE.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
