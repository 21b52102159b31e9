"""Accuracy of matrix capsules on a ten-class subset of MNIST.

    python benchmarks/matrix_capsnet.py --data-dir FOLDER --images 20000 --epochs 2

FOLDER holds MNIST's four files. Trains on the first images, tests on all 10,000 test images; prints
the accuracy and, last, one line of JSON.
"""

import argparse
import json
import logging
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from components.data import sources
from models import detectors


def main() -> None:
    """Trains and tests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", required=True, help="folder of MNIST's four files")
    parser.add_argument("--images", type=int, default=20000, help="training images")
    parser.add_argument("--epochs", type=int, default=2, help="passes over them")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    source = sources.find("mnist", arguments.data_dir)
    labels = source.labels()
    count = arguments.images
    images = np.stack(list(source.read("train", 0, count)))
    detector = detectors.get("matrix_capsnet", epochs=arguments.epochs)
    started = time.monotonic()
    scorer = detector.fit(images, labels["train"][:count])
    seconds = time.monotonic() - started
    tested = np.stack(list(source.read("test", 0, len(labels["test"]))))
    outputs = scorer.predict(tested, batch_size=200, verbose=0)
    accuracy = float((outputs["class_probabilities"].argmax(-1) == labels["test"]).mean())
    print(json.dumps({"accuracy": round(accuracy, 4), "seconds": round(seconds)}))


if __name__ == "__main__":
    main()
