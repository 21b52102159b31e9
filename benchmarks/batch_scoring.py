"""How the cost of batch scoring through Beam grows with the number of images.

    python benchmarks/batch_scoring.py --data-dir FOLDER

MNIST's training images, repeated, in TFRecords of 500, are scored by a small CapsNet (so that the
largest size is feasible) on one worker, in the command's own process, and on two processes of
Beam's direct runner. Every run is a command of its own, imports and all. A size is left out when
the rate of the one before says that it takes longer than `--longest`. The table goes to
docs/results/batch-scoring.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.machine import describe

SIZES = (1_000, 10_000, 60_000, 600_000)
RECORDS_A_FILE = 500
WORKERS = {1: (), 2: ("--direct_num_workers=2", "--direct_running_mode=multi_processing")}
NETWORK = {
    "filters": 32,
    "kernel_size": 5,
    "primary_types": 4,
    "primary_kernel_size": 5,
    "decoder_units": (64, 128),
}
SCORE = """
import json, sys
import apache_beam as beam
from components.serving.batch.pipeline import score_all
from pipeline.beam_args import beam_args
given = json.load(sys.stdin)
pipeline = beam.Pipeline(argv=beam_args(given.pop("beam_args")))
print(score_all(pipeline, **given).scored)
"""


def main() -> None:
    """Makes model and records, runs all sizes, writes the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="folder of MNIST's files")
    parser.add_argument("--longest", type=float, default=900, help="seconds a run may take")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.data_dir)
        for workers, beam_args in WORKERS.items():
            expected = 0.0
            for index, size in enumerate(SIZES):
                if expected <= options.longest:
                    seconds, memory = run(folder, size, beam_args)
                    rows.append(
                        f"| {workers} | {size:,} | {seconds:.1f} | {size / seconds:.0f} "
                        f"| {memory:.2f} |"
                    )
                else:
                    rows.append(f"| {workers} | {size:,} | not run: about {expected:.0f} | | |")
                write_table(rows)
                if index + 1 < len(SIZES):
                    expected = seconds * SIZES[index + 1] / size


def prepare(folder: Path, data_dir: str | None) -> None:
    """Writes the SavedModel `model` and the files `records-*`."""
    import tensorflow as tf

    from components.data import sources
    from components.data.examples import make_example
    from components.serving.export import export
    from models import detectors

    source = sources.get("mnist", data_dir)
    labels = source.labels()["train"]
    images = np.stack(list(source.read("train", 0, len(labels))))
    detector = detectors.get("capsnet", epochs=1, **NETWORK)
    scorer = detector.fit(images[:10_000], labels[:10_000], calibration=images[-1000:])
    export(scorer, images.shape[1:3], str(folder / "model"))
    for start in range(0, len(images), RECORDS_A_FILE):
        with tf.io.TFRecordWriter(str(folder / f"records-{start:05d}")) as writer:
            for index in range(start, start + RECORDS_A_FILE):
                example = make_example(images[index], 0, "", [], f"train-{index}")
                writer.write(example.SerializeToString())


def run(folder: Path, size: int, beam_args: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of one run, and the most memory of its processes together in GiB."""
    files = [str(path) for path in sorted(folder.glob("records-*"))]
    with tempfile.TemporaryDirectory() as output:
        settings = {
            "model": str(folder / "model"),
            "inputs": np.resize(files, size // RECORDS_A_FILE).tolist(),
            "output": output,
            "beam_args": beam_args,
        }
        started, most = time.monotonic(), 0
        process = subprocess.Popen(
            [sys.executable, "-c", SCORE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process.stdin.write(json.dumps(settings))
        process.stdin.close()
        while process.poll() is None:
            most = max(most, resident(process.pid))
            time.sleep(0.1)
    seconds = time.monotonic() - started
    if process.returncode or int(process.stdout.read()) != size:
        sys.exit("The run failed.")
    return seconds, most / 2**20


def resident(pid: int) -> int:
    """Resident set of a process and its descendants in KiB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        # Each thread has children of its own.
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        children = " ".join(task.read_text() for task in tasks).split()
    except OSError:  # it has just ended
        return 0
    own = next((int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line), 0)
    return own + sum(resident(int(child)) for child in children)


def write_table(rows: list[str]) -> None:
    """Writes and prints what was measured so far."""
    network = ", ".join(f"{name} {value}" for name, value in NETWORK.items())
    lines = [
        "# Batch scoring through Beam",
        "",
        "`python benchmarks/batch_scoring.py --data-dir DIR`",
        "",
        "This was measured on " + describe().replace("; ", ", with\n") + ".",
        "The machine was shared with other work.",
        "",
        f"A small CapsNet ({network})",
        "scores MNIST's 60,000 training images, which are repeated for larger sizes, in TFRecords",
        f"of {RECORDS_A_FILE}. Beam's FnApiRunner is used, and two workers are set by",
        f"`{' '.join(WORKERS[2])}`.",
        "Seconds are those of the whole command, in which imports and loading the model take the",
        "same time at every size. Memory is sampled: the sum of the resident sets of all processes",
        "of the command.",
        "",
        "| workers | images | seconds | images/s | peak memory, GiB |",
        "|---:|---:|---:|---:|---:|",
        *rows,
    ]
    target = Path(__file__).parents[1] / "docs" / "results" / "batch-scoring.md"
    target.write_text("\n".join(lines) + "\n")
    print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
