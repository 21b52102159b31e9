"""Every detector on MNIST with the same budget: auROC, accuracy, speed.

    python benchmarks/detectors.py --data-dir FOLDER --anomaly 9 --anomaly 2 --epochs 2 --save

FOLDER holds MNIST's four files. Each detector trains on the images that the pipeline would give it
and scores the balanced test split. Rows append to docs/results/mnist.jsonl, and what is there is
not trained again; `--save` writes the tables docs/results/mnist.md. The last line is JSON.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from held_out import held_out
from machine import describe

from models import detectors, metrics, scores

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def measure(name: str, splits: dict, epochs: int) -> dict:
    """Trains and scores once."""
    detector = detectors.get(name, epochs=epochs, verbose=2)
    images, labels = splits["train"]
    started = time.perf_counter()
    scorer = detector.fit(images, labels, calibration=splits["calibration"][0])
    training = time.perf_counter() - started
    tested, expected = splits["test"]
    scorer.predict(tested[:100], batch_size=100, verbose=0)
    started = time.perf_counter()
    outputs = scorer.predict(tested, batch_size=100, verbose=0)
    scoring = time.perf_counter() - started
    normal = expected >= 0
    right = outputs["class_probabilities"].argmax(-1) == expected
    return {
        "auroc": {
            score: round(metrics.auroc(scores.anomalousness(score, outputs[score]), ~normal), 4)
            for score in (*detector.scores, scores.ANOMALY_SCORE)
        },
        "accuracy": round(float(right[normal].mean()), 4),
        "seconds": round(training),
        "train_images_per_s": round(epochs * len(images) / training),
        "score_images_per_s": round(len(tested) / scoring),
    }


def tables(rows: list[dict]) -> list[str]:
    """A table an anomaly class."""
    lines = [
        "# All detectors on MNIST",
        "",
        "    python benchmarks/detectors.py --data-dir DIR --anomaly 9 --anomaly 2 --epochs 2 "
        "--limit 10000 --save",
        "",
        describe(),
        "",
        "The same budget for all: default settings, the epochs and images of each row, seed 0, the "
        "machine shared with other work. Training images/s include the calibration and, for "
        "`cnn_ocsvm`, `dbn` and `deep_svdd`, what comes before or after the epochs; scoring is of "
        "uint8 images in batches of 100.",
    ]
    for anomaly in sorted({row["anomaly"] for row in rows}, reverse=True):
        lines += [
            "",
            f"## Anomaly {anomaly}",
            "",
            "| detector | auROC of its scores | accuracy on normal classes | images | epochs "
            "| training s | training images/s | scoring images/s |",
            "|---|---|---:|---:|---:|---:|---:|---:|",
        ]
        for row in rows:
            if row["anomaly"] == anomaly:
                auroc = ", ".join(
                    f"{score} {value:.4f}"
                    for score, value in row["auroc"].items()
                    if score != scores.ANOMALY_SCORE
                )
                lines.append(
                    f"| {row['detector']} | {auroc} | {row['accuracy']:.4f} | {row['images']:,} "
                    f"| {row['epochs']} | {row['seconds']} | {row['train_images_per_s']} "
                    f"| {row['score_images_per_s']} |"
                )
    return lines


def main() -> None:
    """Trains what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", required=True, help="folder of MNIST's four files")
    parser.add_argument("--anomaly", action="append", help="class held out; may be repeated")
    parser.add_argument("--detector", action="append", help="some of them alone; may be repeated")
    parser.add_argument("--epochs", type=int, default=2, help="passes over the images")
    parser.add_argument("--limit", type=int, help="training images used")
    parser.add_argument("--save", action="store_true", help="write docs/results/mnist.md")
    arguments = parser.parse_args()

    path = RESULTS / "mnist.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for anomaly in arguments.anomaly or ["9"]:
        splits = held_out("mnist", arguments.data_dir, anomaly)
        splits["train"] = tuple(part[: arguments.limit] for part in splits["train"])
        for name in arguments.detector or detectors.names():
            job = {
                "detector": name,
                "anomaly": anomaly,
                "epochs": arguments.epochs,
                "images": len(splits["train"][0]),
            }
            if any(all(row[key] == job[key] for key in job) for row in rows):
                continue
            rows.append(job | measure(name, splits, arguments.epochs))
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(tables(rows)))
    if arguments.save:
        (RESULTS / "mnist.md").write_text("\n".join(tables(rows)) + "\n")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
