"""The digits pipeline and its batch scoring through Beam's portable protocol."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

pytestmark = pytest.mark.slow

# The pool of workers starts `python`.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("beam")


@pytest.fixture(scope="module")
def engine(folder):
    """Beam arguments for a job server and a pool of worker processes, both started here."""
    jobs, workers = free_port(), free_port()
    servers = []
    for name, port, *command in (
        ("jobs", jobs, "portability.local_job_service_main", "--port", jobs),
        ("workers", workers, "worker.worker_pool_main", "--service_port", workers),
    ):
        with (folder / f"{name}.log").open("w") as log:
            servers.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"apache_beam.runners.{command[0]}"]
                    + [str(argument) for argument in command[1:]],
                    env=ENVIRONMENT,
                    cwd=folder,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline and servers[-1].poll() is None
            try:
                socket.create_connection(("localhost", port)).close()
                break
            except OSError:
                time.sleep(0.2)
    yield (
        "--runner=PortableRunner",
        f"--job_endpoint=localhost:{jobs}",
        "--environment_type=EXTERNAL",
        f"--environment_config=localhost:{workers}",
    )
    for server in servers:
        os.killpg(server.pid, signal.SIGKILL)  # with the workers that it started
        server.wait()


def run_digits(folder, output, *arguments):
    """What `capsad run digits --json` says."""
    arguments = ["digits", "--epochs", "3", "--output", output, "--json", *arguments]
    finished = subprocess.run(
        [sys.executable, "-c", "from pipeline.cli import main; main()", "run", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture(scope="module")
def images(folder):
    images = folder / "images"
    images.mkdir()
    for index in range(150):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), dtype="uint8")
        Image.fromarray(pixels).save(images / f"{index}.png")
    (images / "broken.png").write_bytes(b"no image")
    return images


@pytest.fixture(scope="module")
def here(folder, images):
    return run_digits(folder, "here", "--score-images", "images")


def read_scores(output):
    """Id -> anomaly_score."""
    files = [str(path) for path in Path(output, "scores").iterdir()]
    scores = {}
    for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        identity = features["id"].bytes_list.value[0].decode()
        scores[identity] = features["anomaly_score"].float_list.value[0]
    return scores


def counts(result):
    return json.loads(Path(result["scores"], "counts.json").read_text())


def test_separate_workers_give_what_this_process_gives(folder, images, here, engine):
    options = [f"--beam-arg={argument}" for argument in engine]
    there = run_digits(folder, "there", "--score-images", "images", *options)
    # One for each: ExampleGen, StatisticsGen, Evaluator, BatchScorer.
    assert (folder / "workers.log").read_text().count("Starting worker with command") == 4
    assert here["blessed"] and there["blessed"]
    assert there["auroc"] == pytest.approx(here["auroc"], abs=1e-6)

    expected, found = read_scores(here["scores"]), read_scores(there["scores"])
    assert len(expected) == 150
    assert found == pytest.approx(expected, abs=1e-6)
    for result in (here, there):
        assert counts(result) == {"scored": 150, "dead": 1}
        (line,) = Path(result["scores"], "dead-letters.jsonl").read_text().splitlines()
        assert json.loads(line)["id"] == str(images / "broken.png")


def test_changed_images_are_scored_by_the_model_from_the_cache(folder, images, here):
    (images / "0.png").unlink()
    again = run_digits(folder, "here", "--score-images", "images")
    assert counts(again) == {"scored": 149, "dead": 1}
    assert again["pushed"] == here["pushed"]
    assert again["components"]["Trainer"]["cached"]
    assert not again["components"]["BatchScorer"]["cached"]

    without = run_digits(folder, "here")
    assert without["scores"] is None
    assert without["auroc"] == here["auroc"]
