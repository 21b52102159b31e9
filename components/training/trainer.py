"""What the stock Trainer runs."""

import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import keras
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from components.data.examples import load_split
from components.serving.export import export, write_warmup_requests
from components.training import cluster
from components.training.strategy import MultiWorkerStrategy, choose
from models import detectors
from models.errors import UserError
from models.files import write_whole

_WARMUP_IMAGES = 8


def run_fn(fn_args: FnArgs) -> None:
    """Fits the detector, calibrates it, writes model, SavedModel, history and TensorBoard logs.

    `fn_args.custom_config` holds `detector`, its `settings`, `image_size`, `seed` and `strategy`
    (see `components.training.strategy`). A run that was killed goes on after its last whole epoch.
    Next to the SavedModel (`serving_model_dir`), `model_run_dir` gets `model.keras`,
    `history.json` and the TensorBoard logs. Where several workers train, only the chief writes
    all this, and the others go on from the chief's state.

    Raises:
        UserError: if the data or the settings do not suit the detector, training diverges, or
            another worker stops.
    """
    config = fn_args.custom_config
    # Before anything that TensorFlow computes: it joins a cluster when it starts, or never.
    strategy = choose(config["strategy"])
    is_chief = cluster.task().is_chief
    image_size = tuple(config["image_size"])
    examples_uri = os.path.dirname(os.path.dirname(fn_args.train_files[0]))
    train, validation, calibration = (
        load_split(examples_uri, split, image_size) for split in ("train", "eval", "calibration")
    )

    run_dir = Path(fn_args.model_run_dir)
    # Each execution has a run folder of its own, so the state that outlives a kill lies beside
    # them, named by all that it depends on.
    state = hashlib.sha256(json.dumps([examples_uri, config], sort_keys=True).encode()).hexdigest()[
        :16
    ]
    backup_dir = run_dir.parent.parent / "resume" / state
    if isinstance(strategy, MultiWorkerStrategy):
        archived = strategy.from_chief(_pack(backup_dir) if is_chief else b"")
        if not is_chief:
            backup_dir = Path(tempfile.mkdtemp(prefix="capsad-"))
            _unpack(archived, backup_dir)

    detector = detectors.get(
        config["detector"],
        **config["settings"],
        seed=config["seed"],
        verbose=(1 if sys.stdout.isatty() else 2) if is_chief else 0,
        backup_dir=str(backup_dir),
    )
    logs = keras.callbacks.TensorBoard(str(run_dir), write_graph=False)
    try:
        with strategy.scope():
            scorer = detector.fit(
                train.images,
                train.labels,
                validation=(validation.images, validation.labels),
                calibration=calibration.images,
                callbacks=(logs,) if is_chief else (),
            )
    except tf.errors.UnavailableError as error:
        raise UserError(
            "Another worker of TF_CONFIG's cluster stopped or cannot be reached. Start all of them "
            "again: training goes on after its last whole epoch."
        ) from error
    if is_chief:
        class_names = dict(zip(train.labels.tolist(), train.texts.tolist(), strict=True))
        export(
            scorer,
            image_size,
            fn_args.serving_model_dir,
            [class_names[label] for label in sorted(class_names)],
        )
        write_warmup_requests(fn_args.serving_model_dir, validation.images[:_WARMUP_IMAGES])
        scorer.save(run_dir / "model.keras")
        write_whole(
            run_dir / "history.json",
            json.dumps({"history": detector.history, "seconds": detector.seconds}),
        )
    else:
        # The stock Trainer fails without this folder.
        os.makedirs(fn_args.serving_model_dir, exist_ok=True)
    shutil.rmtree(backup_dir, ignore_errors=True)


def _pack(folder: Path) -> bytes:
    """The files of `folder`, if there is one, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if folder.exists():
            archive.add(folder, arcname=".")
    return buffer.getvalue()


def _unpack(archived: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
        archive.extractall(folder, filter="data")
