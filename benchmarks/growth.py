"""Measures how time and memory of each component grow with the number of images.

    python benchmarks/growth.py small
    python benchmarks/growth.py photographs --weights FILE

`small` are drawn images of 28x28 pixels, `photographs` drawn JPEG of 1,000x1,000, each in ten
folders of classes. They are made in a temporary folder. FILE has the weights of MobileNet. Results
are appended to docs/results/growth.jsonl; what is there is not measured again. growth.md and
growth.svg there are written from all of it. Only Linux tells the memory of a component.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rows import Rows
from whole_run import CAPSAD

from pipeline.machine import describe

COUNTS = {"small": (1_797, 10_000, 60_000, 240_000), "photographs": (200, 1_000, 5_000)}
CLASSES = 10
RESULTS = Path(__file__).parents[1] / "docs" / "results"
ROWS = Rows(RESULTS / "growth.jsonl")
TABLE, CHART = RESULTS / "growth.md", RESULTS / "growth.svg"
START = "start"  # imports, reading and planning, before the first component


def make(kind: str, count: int, folder: Path) -> None:
    """Draws the images, each another one, as files in a folder for each class."""
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        label = number % CLASSES
        file = folder / str(label) / f"{number:06d}"
        (small if kind == "small" else photograph)(label, generator, file)


def small(label: int, generator: np.random.Generator, file: Path) -> None:
    """A bright bar in a place of the class, with noise."""
    image = generator.integers(0, 60, (28, 28), "uint8")
    row = 2 + 2 * label + int(generator.integers(3))
    image[row : row + 4, 4 : 12 + label] += 150
    Image.fromarray(image).save(file.with_suffix(".png"))


def photograph(label: int, generator: np.random.Generator, file: Path) -> None:
    """A smooth texture that is as coarse as its class says."""
    cells = 4 + 4 * label
    texture = generator.integers(0, 255, (cells, cells, 3), "uint8")
    image = Image.fromarray(texture).resize((1000, 1000), Image.Resampling.BICUBIC)
    image.save(file.with_suffix(".jpg"), quality=85)


def measure(kind: str, images: Path, output: Path, weights: str | None) -> dict[str, list[float]]:
    """Runs once; returns seconds and peak MiB of each component."""
    command = [*CAPSAD, "run", "--images", str(images), "--anomaly", "9", "--output", str(output)]
    command += ["--epochs", "1"]
    if kind == "small":
        command += ["--image-size", "28", "--detector", "cnn_softmax"]
    else:
        command += ["--weights", str(weights)]
    found = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("  log:"):
                found[START] = [0.0, peak(process.pid)]
            elif done := re.match(r"  (\w+) +([\d.]+) s", line):
                found[done[1]] = [float(done[2]), peak(process.pid)]
            elif whole := re.search(r"\((\d+) s\)$", line.rstrip()):
                found["whole"] = [float(whole[1]), max(memory for _, memory in found.values())]
    if process.returncode:
        sys.exit(f"The run failed; see {output}/log.txt.")
    return found


def peak(process: int) -> float:
    """The largest resident set since the last call, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def measured(kind: str) -> list[dict]:
    """The rows of a kind of image, by their number."""
    found = (row for row in ROWS.read() if row["kind"] == kind)
    return sorted(found, key=lambda row: row["count"])


def shown(rows: list[dict]) -> list[str]:
    """The components that take half a second or more at the largest number."""
    last = rows[-1]["components"]
    return [name for name in last if name != "whole" and last[name][0] >= 0.5]


def tables() -> Iterator[str]:
    """Lines of a table for each kind: seconds and peak memory by component and count."""
    for kind in COUNTS:
        found = measured(kind)
        if not found:
            continue
        title = {"small": "Images of 28x28", "photographs": "Photographs of 1,000x1,000"}[kind]
        yield f"## {title}: seconds (MiB)"
        yield ""
        counts = [f"{row['count']:,}" for row in found]
        yield f"| | {' | '.join(counts)} |"
        yield f"|---|{'---:|' * len(found)}"
        for name in [*shown(found), "whole"]:
            cells = [row["components"][name] for row in found]
            line = " | ".join(f"{seconds:.1f} ({memory:,.0f})" for seconds, memory in cells)
            yield f"| {name} | {line} |"
        yield ""


def chart() -> None:
    """Draws seconds and memory of the components over the number of images."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    for line, kind in zip(figure.subplots(2, 2), COUNTS, strict=True):
        found = measured(kind)
        for index, (axes, unit) in enumerate(zip(line, ("seconds", "peak MiB"), strict=True)):
            for name in shown(found) if found else ():
                counts = [row["count"] for row in found]
                axes.plot(
                    counts,
                    [row["components"][name][index] for row in found],
                    marker="o",
                    label=name,
                )
            axes.set(xscale="log", yscale="log" if index == 0 else "linear", xlabel="images")
            axes.set_ylabel(unit)
            axes.set_title(kind, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
        line[0].legend(frameon=False, fontsize=7)
    figure.savefig(CHART, metadata={"Date": None})


def main() -> None:
    """Measures what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=COUNTS)
    parser.add_argument("--weights", help="weights of MobileNet, for photographs")
    parser.add_argument("--most", type=int, default=10**9, help="largest number of images")
    arguments = parser.parse_args()
    for count in COUNTS[arguments.kind]:
        if count > arguments.most or ROWS.has({"kind": arguments.kind, "count": count}):
            continue
        with tempfile.TemporaryDirectory() as folder:
            images = Path(folder, "images")
            make(arguments.kind, count, images)
            load = os.getloadavg()[0]
            found = measure(arguments.kind, images, Path(folder, "output"), arguments.weights)
        row = {"kind": arguments.kind, "count": count, "load": round(load, 1), "components": found}
        ROWS.add(row)
    head = [
        "# Growth",
        "",
        "    python benchmarks/growth.py small",
        "    python benchmarks/growth.py photographs --weights FILE",
        "",
        "One run of `capsad run --images DIR --anomaly 9 --epochs 1` for each number of images, in",
        "an empty folder. Small images are given to `cnn_softmax`, photographs to `capsnet` on a",
        "MobileNet. The memory is the largest resident set of the process while the component",
        "runs; about 1,000 MiB of it are TensorFlow, Beam and TFX.",
        "",
        "Time grows at most in proportion. So does memory, but it is not flat: training and report",
        "hold the images that they use, and the Evaluator holds what TFMA says of each of them.",
        "The photographs were measured before the Evaluator gathered the scores in one array,",
        "which made it five times as fast with 60,000 small images.",
        "",
        *tables(),
        "![time and memory by number of images](growth.svg)",
        "",
        f"{describe()}.",
        "",
    ]
    TABLE.write_text("\n".join(head))
    chart()


if __name__ == "__main__":
    sys.exit(main())
