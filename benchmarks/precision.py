"""Whether training CapsNet in bfloat16 costs accuracy: auROC of both precisions, three seeds.

    python benchmarks/precision.py --mnist FOLDER --fashion-mnist FOLDER

Each pair of trainings has the same splits and the same seed. The results are appended to
docs/results/precision.jsonl; what is there is not trained again. precision.md there is
written from all of it.
"""

import argparse
import itertools
import os
import statistics
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rows import Rows

from models import detectors, metrics
from models.inference import in_batches
from models.score_names import anomalousness
from pipeline import configs
from pipeline.machine import describe
from pipeline.plan import plan

PRECISIONS = ("float32", "bfloat16")
ANOMALIES = (("mnist", "2"), ("mnist", "9"), ("fashion_mnist", "Sneaker"))
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parents[1] / "docs" / "results"
ROWS, TABLE = Rows(RESULTS / "precision.jsonl"), RESULTS / "precision.md"


def jobs(epochs: int, limit: int | None) -> list[dict]:
    """One job for each data set, anomaly, seed and precision."""
    return [
        {
            "data_set": data_set,
            "anomaly": anomaly,
            "seed": seed,
            "precision": precision,
            "epochs": epochs,
            "limit_per_class": limit,
        }
        for seed, (data_set, anomaly), precision in itertools.product(SEEDS, ANOMALIES, PRECISIONS)
    ]


def measure(job: dict, data_dir: str) -> dict[str, float]:
    """The auROC of each score, and the seconds of training."""
    config = configs.override(
        configs.get(job["data_set"]),
        data_dir=data_dir,
        anomaly=job["anomaly"],
        detector="capsnet",
        limit_per_class=job["limit_per_class"],
    )
    splits = plan(config).load_splits()
    detector = detectors.get(
        "capsnet", epochs=job["epochs"], seed=job["seed"], precision=job["precision"]
    )
    scorer = detector.fit(splits["train"].images, splits["train"].labels)
    outputs = in_batches(scorer, splits["test"].images)
    is_anomaly = splits["test"].labels < 0
    return {
        **{
            name: metrics.auroc(anomalousness(name, outputs[name]), is_anomaly)
            for name in detector.scores
        },
        "seconds": round(detector.seconds),
    }


def table() -> str:
    """The means over the seeds in Markdown."""
    found = ROWS.read()
    lines = [
        "# Precision of training",
        "",
        "    python benchmarks/precision.py --mnist DIR --fashion-mnist DIR",
        "",
        "Each cell is the mean auROC of CapsNet over the seeds, with the standard deviation over",
        "them. In bfloat16, only the two convolutions of training are computed so; scores are",
        "float32 in both. Images are those of each class that were used at most.",
        "",
        "| data set | anomaly | images | epochs | seeds | score | float32 | bfloat16 | change |",
        "|---|---|---:|---:|---:|---|---:|---:|---:|",
    ]
    keys = ("data_set", "anomaly", "limit_per_class", "epochs")
    kinds = dict.fromkeys(tuple(row[key] for key in keys) for row in found)
    for kind in kinds:
        values = {
            precision: {
                row["seed"]: row
                for row in found
                if tuple(row[key] for key in keys) == kind and row["precision"] == precision
            }
            for precision in PRECISIONS
        }
        seeds = sorted(values["float32"].keys() & values["bfloat16"].keys())
        for score in ("conformity", "pp", "re") if len(seeds) > 1 else ():
            means = {}
            cells = []
            for precision in PRECISIONS:
                part = [values[precision][seed][score] for seed in seeds]
                means[precision] = statistics.mean(part)
                cells.append(f"{means[precision]:.4f} ± {statistics.stdev(part):.4f}")
            difference = means["bfloat16"] - means["float32"]
            data_set, anomaly, limit, epochs = kind
            lines.append(
                f"| {data_set} | {anomaly} | {limit or 'all'} | {epochs} | {len(seeds)} | {score} "
                f"| {cells[0]} | {cells[1]} | {difference:+.4f} |"
            )
    return "\n".join([*lines, "", f"{describe()}; the machine was shared.", ""])


def main() -> None:
    """Trains what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mnist", required=True, help="folder of MNIST's four files")
    parser.add_argument("--fashion-mnist", required=True, help="folder of Fashion-MNIST's files")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--limit-per-class", type=int, help="images of each class; all without it")
    arguments = parser.parse_args()
    for job in jobs(arguments.epochs, arguments.limit_per_class):
        if ROWS.has(job):
            continue
        row = job | measure(job, getattr(arguments, job["data_set"]))
        ROWS.add(row)
        TABLE.write_text(table())
    TABLE.write_text(table())


if __name__ == "__main__":
    sys.exit(main())
