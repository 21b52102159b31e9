"""Trains the paper's CapsNet on a GPU under JAX; needs keras, jax, numpy and scipy alone.

    python benchmarks/gpu.py --data-dir FOLDER --save

FOLDER holds MNIST's four files. For float32 and bfloat16 it trains the whole schedule of one
anomaly class and reports seconds an epoch (the first, which compiles, apart), images/s, and auROC.
Prints a table and, last, one line of JSON; `--save` writes docs/results/gpu.md.
"""

import argparse
import json
import logging
import os
import statistics
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras

from models import detectors, metrics
from models.score_names import anomalousness
from pipeline import configs
from pipeline.machine import describe
from pipeline.plan import plan


class EpochTimes(keras.callbacks.Callback):
    """Seconds of each epoch, validation included."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Stops it."""
        self.seconds.append(time.perf_counter() - self.started)


def measure(splits: dict, precision: str, epochs: int, batch_size: int) -> dict:
    """Trains, scores the test split."""
    detector = detectors.get(
        "capsnet", epochs=epochs, batch_size=batch_size, shift=2, precision=precision
    )
    times = EpochTimes()
    started = time.perf_counter()
    scorer = detector.fit(*splits["train"], validation=splits["eval"], callbacks=(times,))
    seconds = time.perf_counter() - started
    images, labels = splits["test"]
    outputs = scorer.predict(images, batch_size=1000, verbose=0)
    epoch = statistics.median(times.seconds[1:] or times.seconds)
    return {
        "precision": precision,
        "images_per_s": round(len(splits["train"][0]) / epoch),
        "seconds_an_epoch": round(epoch, 2),
        "first_epoch": round(times.seconds[0], 1),
        "whole": round(seconds, 1),
        **{
            f"auroc_{name}": round(metrics.auroc(anomalousness(name, outputs[name]), labels < 0), 4)
            for name in detector.scores
        },
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", required=True, help="folder of MNIST's four files")
    parser.add_argument("--anomaly", default="9", help="the class held out")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each training")
    parser.add_argument("--batch-size", type=int, default=100, help="images a step")
    parser.add_argument("--limit", type=int, help="training images used, for a trial")
    parser.add_argument("--save", action="store_true", help="write docs/results/gpu.md")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)

    config = configs.override(
        configs.get("mnist"), data_dir=arguments.data_dir, anomaly=arguments.anomaly
    )
    splits = {
        name: (split.images, split.labels) for name, split in plan(config).load_splits().items()
    }
    images, labels = splits["train"]
    splits["train"] = images[: arguments.limit], labels[: arguments.limit]
    rows = [
        measure(splits, precision, arguments.epochs, arguments.batch_size)
        for precision in ("float32", "bfloat16")
    ]
    lines = [
        "# CapsNet on a GPU",
        "",
        f"    python benchmarks/gpu.py --anomaly {arguments.anomaly} --epochs {arguments.epochs} "
        f"--batch-size {arguments.batch_size}",
        "",
        f"{describe()}.",
        f"An epoch has {len(splits['train'][0])} images of MNIST. The seconds of an epoch are the",
        "median after the first.",
        "",
        f"| {' | '.join(rows[0])} |",
        f"|{'---|' * len(rows[0])}",
        *(f"| {' | '.join(map(str, row.values()))} |" for row in rows),
    ]
    print("\n".join(lines))
    if arguments.save:
        (Path(__file__).parents[1] / "docs" / "results" / "gpu.md").write_text(
            "\n".join(lines) + "\n"
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
