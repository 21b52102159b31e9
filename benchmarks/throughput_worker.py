"""One variant of CapsNet in a process of its own; see `throughput.py`, which drives it.

Reads `train N` or `score N` from standard input and answers the seconds of N steps in JSON.
"""

import contextlib
import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

CLASSES = 9
RECONSTRUCTION_WEIGHT = 0.0005


def _capsad(shape, precision="float32"):
    """Ours."""
    import keras

    from models import detectors
    from models.losses import MarginLoss, SumOfSquares

    detector = detectors.get("capsnet")
    model = detector.network(shape, CLASSES, precision).training_model()
    model.compile(
        keras.optimizers.Adam(),
        loss={"lengths": MarginLoss(), "reconstruction": SumOfSquares()},
        loss_weights={"lengths": 1.0, "reconstruction": RECONSTRUCTION_WEIGHT},
        jit_compile=False,
    )

    def train(images, target):
        x = {"images": images, "target": target}
        model.train_on_batch(x, {"lengths": target, "reconstruction": images})

    @functools.cache  # Made when it is needed, so that it is not in the memory of training.
    def scoring():
        network = detector.network(shape, CLASSES)
        primary = network.encoder.get_layer("primary_capsules")
        # As an exported model does when it is loaded.
        values = keras.Variable(primary.kernel_values(), trainable=False)
        primary.kept_values = lambda: values.value
        return network.predict_on_batch

    return train, lambda images: scoring()(images)


def _plain(shape):
    """Keras's own layers."""
    import keras
    from plain_capsnet import plain_capsnet

    from models.losses import MarginLoss, SumOfSquares

    model, scoring = plain_capsnet(shape, CLASSES)
    model.compile(
        keras.optimizers.Adam(),
        loss=[MarginLoss(), SumOfSquares()],
        loss_weights=[1.0, RECONSTRUCTION_WEIGHT],
        jit_compile=False,
    )

    def train(images, target):
        model.train_on_batch((images, target), (target, images))

    return train, scoring.predict_on_batch


def _peer(shape):
    """CapsNet-Keras, branch tf2.2, whose folder is the first on the path."""
    from capsulenet import CapsNet, margin_loss
    from tensorflow.keras import optimizers

    model, scoring, _ = CapsNet(shape, CLASSES, 3, BATCH)
    model.compile(
        optimizers.Adam(),
        loss=[margin_loss, "mse"],
        loss_weights=[1.0, RECONSTRUCTION_WEIGHT * float(np.prod(shape))],
    )

    def train(images, target):
        model.train_on_batch([images, target], [target, images])

    return train, scoring.predict_on_batch


def main(variant: Callable, shape: tuple[int, ...], batch: int) -> None:
    """Serves until standard input ends."""
    generator = np.random.default_rng(0)
    images = generator.random((batch, *shape), "float32")
    target = np.eye(CLASSES, dtype="float32")[generator.integers(CLASSES, size=batch)]
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print, too

    import keras  # noqa: F401

    # Of building, tracing and the first step; not of importing TensorFlow.
    started = time.perf_counter()
    train, score = variant(shape)
    train(images, target)
    first_step = time.perf_counter() - started
    print(json.dumps({"first_step": first_step}), file=answers, flush=True)

    for line in sys.stdin:
        task, steps = line.split()
        call, arguments = {"train": (train, (images, target)), "score": (score, (images,))}[task]
        call(*arguments)
        started = time.perf_counter()
        for _ in range(int(steps)):
            call(*arguments)
        seconds = time.perf_counter() - started
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer = {"seconds": seconds, "peak_bytes": memory}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    VARIANTS = {
        "capsad": _capsad,
        "capsad, bfloat16": functools.partial(_capsad, precision="mixed_bfloat16"),
        "plain": _plain,
        "peer": _peer,
    }
    BATCH = int(sys.argv[3])
    with contextlib.suppress(KeyboardInterrupt):
        main(VARIANTS[sys.argv[1]], tuple(json.loads(sys.argv[2])), BATCH)
