"""Measures training and scoring of CapsNet: ours, plain Keras layers', and a public peer's.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --peer CapsNet-Keras --peer-python PYTHON --save

Each variant lives in a process of its own; they take turns, so that all meet the machine in the
same mood, and the median turn counts. A table that was taken while the machine had other work is
marked as loaded. The peer is github.com/XifengGuo/CapsNet-Keras, branch
tf2.2, in a folder that you fetch; PYTHON is that of an environment with tensorflow, tf-keras,
pandas, matplotlib and pillow. Prints tables and, last, one line of JSON about 28x28x1;
`--save` writes the tables and the chart to docs/results/throughput.{md,svg}.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from throughput_worker import CLASSES

from models.layers.frequency_convolution import multiply_adds
from pipeline.machine import describe

SHAPES = {
    (28, 28, 1): "28x28x1 (MNIST, Fashion-MNIST)",
    (32, 32, 1): "32x32x1",
    (32, 32, 3): "32x32x3",
}
BATCH = 100
IDLE = 0.3  # largest load average of an idle machine
OURS = ("capsad", "capsad, bfloat16")  # in training; scores are float32 in both
NAMES = {
    **{name: name for name in OURS},
    "plain": "plain Keras layers",
    "peer": "CapsNet-Keras",
}
HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results"


class Worker:
    """A variant in its process."""

    def __init__(self, variant: str, shape: tuple[int, ...], python: str, path: Path):
        self.process = subprocess.Popen(
            [python, HERE / "throughput_worker.py", variant, json.dumps(shape), str(BATCH)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(path),
                "TF_USE_LEGACY_KERAS": str(int(variant == "peer")),
            },
        )
        self.variant = variant
        self.first_step = self._answer()["first_step"]
        self.seconds: dict[str, list[float]] = {"train": [], "score": []}
        self.memory: dict[str, float] = {}

    def measure(self, task: str, steps: int) -> None:
        """Lets it do its turn."""
        self.process.stdin.write(f"{task} {steps}\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.seconds[task].append(answer["seconds"] / steps)
        self.memory[task] = answer["peak_bytes"] / 2**30

    def rate(self, task: str) -> float:
        """Images a second: the median turn's."""
        return BATCH / statistics.median(self.seconds[task])

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"The variant {self.variant} failed; run it alone to see why.")
        return json.loads(line)


def multiply_adds_an_image(shape: tuple[int, int, int], ours: bool) -> dict[str, float]:
    """Of scoring and of training an image: twice more for the two gradients of each product."""
    height, width, channels = shape
    features = (height - 8, width - 8, 256)
    first = features[0] * features[1] * 81 * channels * 256
    primary = multiply_adds(features, 9, 256, 2)[ours]
    capsules = (1 + (features[0] - 9) // 2) * (1 + (features[1] - 9) // 2) * 32
    predictions = capsules * CLASSES * 8 * 16
    # Three weighted sums and two agreements, of 8 components and the products, or of 16.
    routing = 5 * (predictions + capsules * CLASSES * 8) if ours else 5 * capsules * CLASSES * 16
    decoder = CLASSES * 16 * 512 + 512 * 1024 + 1024 * height * width * channels
    rest = primary + routing + decoder + (0 if ours else predictions)
    return {"score": first + rest, "train": 2 * first + 3 * rest}


def measure(shape: tuple[int, int, int], arguments: argparse.Namespace) -> list[Worker]:
    """All variants in turns on random images."""
    root = HERE.parent
    workers = [Worker(name, shape, sys.executable, root) for name in OURS]
    workers += [Worker("plain", shape, sys.executable, root)]
    if arguments.peer:
        workers += [Worker("peer", shape, arguments.peer_python, arguments.peer.resolve())]
    for task, steps in (("train", arguments.steps), ("score", 3 * arguments.steps)):
        for _ in range(arguments.turns):
            for worker in workers:
                worker.measure(task, steps)
    for worker in workers:
        worker.close()
    return workers


def table(shape: tuple[int, int, int], workers: list[Worker], gflops: float) -> list[str]:
    """A line a variant."""
    lines = [
        f"## {SHAPES[shape]}",
        "",
        "| | training images/s | ours faster | multiply-adds | of the limit "
        "| scoring images/s | ours faster | multiply-adds | of the limit | first step | memory |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    ours = workers[0]
    for worker in workers:
        work = multiply_adds_an_image(shape, worker.variant in OURS)
        cells = [f"**{NAMES['capsad']}**" if worker is ours else NAMES[worker.variant]]
        for task in ("train", "score"):
            rate = worker.rate(task)
            cells += [
                f"{rate:.0f}",
                f"{ours.rate(task) / rate:.2f}x",
                f"{work[task] / 1e6:.0f} M",
                f"{2 * work[task] * rate / gflops / 1e9:.0%}",
            ]
        cells += [f"{worker.first_step:.1f} s", f"{worker.memory['train']:.2f} GiB"]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def chart(measured: dict[tuple, list[Worker]], target: Path) -> None:
    """Bars of images/s, a group a shape."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    greys = dict(zip(NAMES, ("#1b4f72", "#5d8aa8", "#7f8c8d", "#ccd1d1"), strict=True))
    for axes, task, title in zip(
        figure.subplots(1, 2), ("train", "score"), ("Training", "Scoring"), strict=True
    ):
        for position, workers in enumerate(measured.values()):
            for index, worker in enumerate(workers):
                bar = axes.bar(
                    position + 0.22 * (index - 1.5),
                    worker.rate(task),
                    0.2,
                    color=greys[worker.variant],
                    label=None if position else NAMES[worker.variant],
                )
                axes.bar_label(bar, fmt="%.0f", fontsize=8)
        axes.set_xticks(range(len(measured)), ["x".join(map(str, shape)) for shape in measured])
        axes.set_title(title, loc="left")
        axes.set_ylabel("images/s")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(target, metadata={"Date": None})


def gemm_gflops(size: int = 2048, repeats: int = 20) -> float:
    """Rate of TensorFlow's float32 matrix product on all cores, in GFLOP/s: the best of some."""
    import tensorflow as tf

    factor = tf.random.normal((size, size))
    tf.matmul(factor, factor).numpy()
    best = math.inf
    for _ in range(repeats):
        started = time.perf_counter()
        tf.matmul(factor, factor).numpy()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", type=Path, help="folder of CapsNet-Keras, branch tf2.2")
    parser.add_argument("--peer-python", default=sys.executable, help="its Python")
    parser.add_argument("--steps", type=int, default=5, help="training steps a turn")
    parser.add_argument("--turns", type=int, default=5, help="turns of each variant")
    parser.add_argument("--shape", choices=[*map(str, SHAPES)], help="one shape alone")
    parser.add_argument("--save", action="store_true", help="write docs/results")
    arguments = parser.parse_args()
    if arguments.peer and not (arguments.peer / "capsulenet.py").is_file():
        parser.error(f"--peer: {arguments.peer} holds no capsulenet.py")

    load = os.getloadavg()[0]
    gflops = gemm_gflops()
    measured, lines = {}, []
    for shape in SHAPES:
        if arguments.shape in (None, str(shape)):
            measured[shape] = measure(shape, arguments)
            lines += table(shape, measured[shape], gflops)
            print("\n".join(table(shape, measured[shape], gflops)), flush=True)
    mood = (
        f"The machine was {'idle' if load <= IDLE else '**loaded**'}: its load average was "
        f"{load:.2f} before and {os.getloadavg()[0]:.2f} at the end, with this benchmark."
    )
    print(mood)
    gflops = max(gflops, gemm_gflops())
    workers = {worker.variant: worker for worker in next(iter(measured.values()))}
    ours = workers["capsad"]

    def ratio(task, variant, own=ours):
        if variant not in workers:
            return None
        return round(own.rate(task) / workers[variant].rate(task), 2)

    if arguments.save:
        command = "python benchmarks/throughput.py --peer DIR --peer-python PYTHON --save"
        head = ["# Throughput of CapsNet", "", f"    {command}", ""]
        head += [
            "This was measured on " + describe().replace("; ", ", with\n") + ".",
            "",
            mood,
            "",
            f"All variants use batches of {BATCH} and {CLASSES} classes, with XLA off. All are",
            "float32, but one trains in bfloat16. capsad scores as an exported model does, with",
            "the kernel transformed beforehand.",
            f"The median of {arguments.turns} turns counts. A matrix multiplication (2048 x 2048)",
            f'reaches {gflops:.0f} GFLOP/s; "of the limit" means the share of this rate.',
            "The first step is building, tracing and one training step. Memory is the process's",
            "largest resident set after training.",
            "",
            "![images per second](throughput.svg)",
            "",
        ]
        (RESULTS / "throughput.md").write_text("\n".join(head + lines).rstrip() + "\n")
        chart(measured, RESULTS / "throughput.svg")
    print(
        json.dumps(
            {
                "train_vs_peer": ratio("train", "peer"),
                "train_vs_plain": ratio("train", "plain"),
                "train_bfloat16_vs_peer": ratio("train", "peer", workers["capsad, bfloat16"]),
                "train_bfloat16_vs_plain": ratio("train", "plain", workers["capsad, bfloat16"]),
                "score_vs_peer": ratio("score", "peer"),
                "score_vs_plain": ratio("score", "plain"),
                "train_images_per_s": round(ours.rate("train"), 1),
                "gemm_gflops": round(gflops, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
