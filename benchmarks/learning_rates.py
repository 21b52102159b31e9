"""The same search of the learning rate for every detector, judged on normal images alone.

    python benchmarks/learning_rates.py mnist --data-dir FOLDER
    python benchmarks/learning_rates.py fashion_mnist --data-dir FOLDER

Each detector is trained with each rate, without the class 9, and judged by its own loss on the
`eval` split, which holds no anomaly. No auROC is computed, so that none can be chosen by it. A
detector's default is the smallest rate whose geometric mean of the losses on both data sets is at
most 1 % above the best: that much is noise, and smaller rates fail less often. The results
are appended to docs/results/learning-rates.jsonl; what is there is not trained again.
docs/results/learning-rates.md is written from all of it.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rows import Rows

from models import detectors
from models.errors import UserError
from pipeline import configs
from pipeline.machine import describe
from pipeline.plan import plan

RATES = (0.0003, 0.001, 0.003, 0.005, 0.01, 0.02, 0.05)
RATES_OF_DBN = (0.003, 0.01, 0.03, 0.05, 0.1, 0.2, 0.5)  # of contrastive divergence, not of Adam
NOISE = 1.01
RESULTS = Path(__file__).parents[1] / "docs" / "results"
ROWS, TABLE = Rows(RESULTS / "learning-rates.jsonl"), RESULTS / "learning-rates.md"


def jobs(data_set: str, limit: int, epochs: int) -> list[dict]:
    """One job for each detector that is trained, and each rate."""
    return [
        {
            "data_set": data_set,
            "limit_per_class": limit,
            "epochs": epochs,
            "detector": name,
            "learning_rate": rate,
        }
        for name in sorted(detectors.names(), key=lambda name: name == "matrix_capsnet")  # slow
        if any(field.name == "learning_rate" for field in detectors.describe(name).settings())
        for rate in (RATES_OF_DBN if name == "dbn" else RATES)
    ]


def loss(job: dict, data_dir: str) -> float:
    """The loss on `eval` after training; infinite if training diverged."""
    config = configs.override(
        configs.get(job["data_set"]),
        data_dir=data_dir,
        anomaly="9",
        detector=job["detector"],
        epochs=job["epochs"],
        limit_per_class=job["limit_per_class"],
        settings={"learning_rate": job["learning_rate"]},
    )
    planned = plan(config)
    splits = planned.load_splits()
    train, watched = splits["train"], splits["eval"]
    detector = planned.detector
    try:
        scorer = detector.fit(
            train.images, train.labels, validation=(watched.images, watched.labels)
        )
    except UserError:
        return math.inf
    if "val_loss" in detector.history:
        return detector.history["val_loss"][-1]
    # The DBN has no loss: its reconstruction error.
    return -float(detector.raw_scores(scorer, watched.images).mean())


def chosen() -> dict[str, float]:
    """The rate of each detector that was trained with each rate on both data sets."""
    losses: dict[str, dict[float, dict[str, float]]] = {}
    for row in ROWS.read():
        rates = losses.setdefault(row["detector"], {})
        rates.setdefault(row["learning_rate"], {})[row["data_set"]] = row["loss"]
    means = {
        name: {rate: math.sqrt(math.prod(found.values())) for rate, found in rates.items()}
        for name, rates in losses.items()
        if len(rates) == len(RATES) and all(len(found) == 2 for found in rates.values())
    }
    return {
        name: min(rate for rate, mean in of_rate.items() if mean <= NOISE * min(of_rate.values()))
        for name, of_rate in means.items()
    }


def table() -> str:
    """The losses in Markdown, with the smallest of each detector in bold."""
    lines = [
        "# Learning rates",
        "",
        "    python benchmarks/learning_rates.py mnist --data-dir DIR",
        "    python benchmarks/learning_rates.py fashion_mnist --data-dir DIR",
        "",
        "Each detector had the same search: each rate, judged by the detector's own loss on the",
        "normal images of `eval`. No test image and no anomaly had a part in it. The losses of",
        "different detectors cannot be compared. The smallest of each data set is bold. The",
        "default is the smallest rate whose geometric mean of the losses on both is at most 1 %",
        "above the best:",
        "",
        "| detector | default below 20 epochs |",
        "|---|---:|",
        *(f"| {name} | {rate:g} |" for name, rate in chosen().items()),
        "",
    ]
    found = ROWS.read()
    for data_set, limit, epochs in sorted(
        {(row["data_set"], row["limit_per_class"], row["epochs"]) for row in found}
    ):
        lines += [
            f"## {data_set}, {epochs} epoch{'s' * (epochs > 1)}, up to {limit:,} images of a class",
            "",
            "| detector | " + " | ".join("rate: loss" for _ in RATES) + " |",
            "|---" * (len(RATES) + 1) + "|",
        ]
        for name in detectors.names():
            own = [
                row
                for row in found
                if (row["data_set"], row["limit_per_class"], row["epochs"], row["detector"])
                == (data_set, limit, epochs, name)
            ]
            if not own:
                continue
            best = min(row["loss"] for row in own)
            cells = [
                f"**{row['learning_rate']:g}: {row['loss']:.4g}**"
                if row["loss"] == best
                else f"{row['learning_rate']:g}: {row['loss']:.4g}"
                for row in sorted(own, key=lambda row: row["learning_rate"])
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join([*lines, f"Seed 0; {describe()}; the machine was shared.", ""])


def main() -> None:
    """Trains what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data_set", choices=("mnist", "fashion_mnist"))
    parser.add_argument("--data-dir", required=True, help="folder of the data set's four files")
    parser.add_argument("--limit-per-class", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    for job in jobs(arguments.data_set, arguments.limit_per_class, arguments.epochs):
        if ROWS.has(job):
            continue
        started = time.monotonic()
        row = {**job, "loss": loss(job, arguments.data_dir)}
        row["seconds"] = round(time.monotonic() - started)
        ROWS.add(row)
        TABLE.write_text(table())
    TABLE.write_text(table())


if __name__ == "__main__":
    sys.exit(main())
