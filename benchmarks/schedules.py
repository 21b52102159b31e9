"""Which training schedule gets furthest in few epochs, judged on normal images alone.

    python benchmarks/schedules.py --data-dir FOLDER search
    python benchmarks/schedules.py --data-dir FOLDER result

`search` trains every candidate for one epoch on MNIST without the 9 and ranks them by margin loss
on the `eval` split, which holds no anomaly; it prints no auROC, so that none can be chosen by it.
`result` reports auROC for anomalies 2 and 9 after 1, 2 and 4 epochs of the default schedule. Both
append to benchmarks/results/schedules-{search,result}.jsonl; what is there is not trained again.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from held_out import held_out

CANDIDATES = [
    {"schedule": "linear", "learning_rate": 0.001},
    {"schedule": "one_cycle", "learning_rate": 0.001},
    {"schedule": "one_cycle", "learning_rate": 0.002},
    {"schedule": "one_cycle", "learning_rate": 0.003},
    {"schedule": "one_cycle", "learning_rate": 0.005},
    {"schedule": "one_cycle", "learning_rate": 0.003, "shift": 1},
    {"schedule": "one_cycle", "learning_rate": 0.002, "batch_size": 50},
    {"schedule": "one_cycle", "learning_rate": 0.003, "batch_size": 50},
]
RESULTS = Path(__file__).parent / "results"


def train(
    splits: dict[str, tuple[np.ndarray, np.ndarray]], epochs: int, settings: dict
) -> tuple[dict, dict]:
    """Trains once; gives measures of the normal `eval` split, and auROC on `test`."""
    from models import detectors, metrics, scores

    detector = detectors.get("capsnet", epochs=epochs, **settings)
    started = time.monotonic()
    scorer = detector.fit(*splits["train"], validation=splits["eval"])
    seconds = time.monotonic() - started
    images, labels = splits["test"]
    outputs = scorer.predict(images, batch_size=500, verbose=0)
    auroc = {
        name: metrics.auroc(scores.anomalousness(name, outputs[name]), labels < 0)
        for name in detector.scores
    }
    history = {name: values[-1] for name, values in detector.history.items()}
    normal = {
        "margin_loss": history["val_lengths_loss"],
        "accuracy": history["val_lengths_accuracy"],
        "reconstruction_error": history["val_reconstruction_loss"],
        "seconds": round(seconds),
    }
    return normal, auroc


def rows(path: Path) -> list[dict]:
    """What was trained before."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Trains what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", required=True, help="folder of MNIST's four files")
    parser.add_argument("what", choices=("search", "result"))
    arguments = parser.parse_args()
    if arguments.what == "search":
        jobs = [{"anomaly": "9", "epochs": 1, "settings": settings} for settings in CANDIDATES]
    else:
        jobs = [
            {"anomaly": anomaly, "epochs": epochs, "settings": {}}
            for epochs in (1, 2, 4)
            for anomaly in ("2", "9")
        ]
    path = RESULTS / f"schedules-{arguments.what}.jsonl"
    done = rows(path)
    for job in jobs:
        if any(all(row[key] == job[key] for key in job) for row in done):
            continue
        splits = held_out("mnist", arguments.data_dir, job["anomaly"])
        normal, auroc = train(splits, job["epochs"], job["settings"])
        row = job | normal | ({"auroc": auroc} if arguments.what == "result" else {})
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    for row in sorted(
        rows(path), key=lambda row: (row["anomaly"], row["epochs"], row["margin_loss"])
    ):
        print(json.dumps(row))


if __name__ == "__main__":
    sys.exit(main())
