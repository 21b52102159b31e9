"""The code that the stock Trainer runs."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from components.data.examples import SEEN_FILE, load_digests, load_split
from components.data.splits import Split
from components.serving.export import export, write_warmup_requests
from components.training import cluster
from components.training.strategy import MultiWorkerStrategy, choose
from models import detectors
from models.detectors.base import Detector
from models.errors import UserError
from models.files import write_whole

_WARMUP_IMAGES = 8


def run_fn(fn_args: FnArgs) -> None:
    """Fits and calibrates the detector, and writes all results.

    `fn_args.custom_config` holds `detector`, its `settings`, `image_size`, `white` (see
    `components.data.decode`), `seed`, `strategy` (see `components.training.strategy`),
    `alpha` and `serving_device` (see `components.serving.export`), the digests `data` and
    `digest`, which the model tells, and the names of the `anomaly` classes. After a kill, training
    continues after the last complete epoch. The SavedModel is written to `serving_model_dir`, and
    `components.data.examples.SEEN_FILE` beside it. `history.json` and the TensorBoard logs are
    written to `model_run_dir`. If several workers train, only the chief writes, and the other
    workers continue from the state of the chief.

    Raises:
        UserError: if the data or the settings do not suit the detector, if training diverges, or
            if another worker stops.
    """
    config = fn_args.custom_config
    # This must come first: TensorFlow can join a cluster only before it computes anything.
    strategy = choose(config["strategy"])
    is_chief = cluster.task().is_chief
    image_size = tuple(config["image_size"])
    examples_uri = os.path.dirname(os.path.dirname(fn_args.train_files[0]))
    train, validation, calibration = (
        load_split(examples_uri, split, image_size) for split in ("train", "eval", "calibration")
    )
    run_dir = Path(fn_args.model_run_dir)
    backup_dir = _backup_folder(run_dir, examples_uri, config)
    if isinstance(strategy, MultiWorkerStrategy):
        backup_dir = _received_backup(strategy, backup_dir, is_chief)

    detector = detectors.get(
        config["detector"],
        **config["settings"],
        seed=config["seed"],
        backup_dir=str(backup_dir),
        features_dir=_features_folder(examples_uri),
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
            "Another worker of TF_CONFIG's cluster stopped or cannot be reached. Start all workers "
            "again. Training then continues after the last complete epoch."
        ) from error
    if is_chief:
        _write(detector, scorer, train, validation, image_size, fn_args)
        seen = [load_digests(examples_uri, split) for split in ("train", "eval", "calibration")]
        write_whole(
            Path(fn_args.serving_model_dir).parent / SEEN_FILE,
            json.dumps({"anomaly": config["anomaly"], "images": sum(seen, [])}),
        )
    else:
        # The stock Trainer fails if this folder does not exist.
        os.makedirs(fn_args.serving_model_dir, exist_ok=True)
    shutil.rmtree(backup_dir, ignore_errors=True)


def _backup_folder(run_dir: Path, examples_uri: str, config: dict[str, Any]) -> Path:
    """Returns the folder for the state of training, which must outlive a kill.

    Each execution has its own run folder. Therefore the state is in a folder beside the run
    folders, whose name depends on all that the state depends on.
    """
    inputs = json.dumps([examples_uri, config], sort_keys=True)
    return run_dir.parent.parent / "resume" / hashlib.sha256(inputs.encode()).hexdigest()[:16]


def _features_folder(examples_uri: str) -> str | None:
    """Returns the folder for features, beside the examples and gone with them.

    They are memory-mapped, so nothing keeps them if the examples are not on a file system.
    """
    return None if "://" in examples_uri else os.path.join(examples_uri, "features")


def _received_backup(strategy: MultiWorkerStrategy, backup_dir: Path, is_chief: bool) -> Path:
    """Sends the state of the chief to all workers, and returns the folder of this worker's copy."""
    archived = strategy.from_chief(_pack(backup_dir) if is_chief else b"")
    if is_chief:
        return backup_dir
    copy = Path(tempfile.mkdtemp(prefix="capsad-"))
    _unpack(archived, copy)
    return copy


def _write(
    detector: Detector,
    scorer: keras.Model,
    train: Split,
    validation: Split,
    image_size: tuple[int, int],
    fn_args: FnArgs,
) -> None:
    """Writes the SavedModel, its warm-up requests and `history.json`."""
    config = fn_args.custom_config
    class_names = dict(zip(train.labels.tolist(), train.texts.tolist(), strict=True))
    export(
        scorer,
        image_size,
        fn_args.serving_model_dir,
        class_names=[class_names[label] for label in sorted(class_names)],
        image_names=train.ids.tolist(),
        white=config["white"],
        alpha=config["alpha"],
        serving_device=config["serving_device"],
        about={
            **{name: config[name] for name in ("detector", "settings", "seed", "data")},
            "code": config["digest"],
            "calibrated_score": detector.calibrated_score,
        },
    )
    write_warmup_requests(fn_args.serving_model_dir, validation.images[:_WARMUP_IMAGES])
    write_whole(
        Path(fn_args.model_run_dir, "history.json"),
        json.dumps(
            {
                "epochs": detector.finished_epochs,
                "history": detector.history,
                "seconds": detector.seconds,
                "notes": detector.notes,
            }
        ),
    )


def _pack(folder: Path) -> bytes:
    """Returns the files of `folder` as a tar archive, which is empty if there is no folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if folder.exists():
            archive.add(folder, arcname=".")
    return buffer.getvalue()


def _unpack(archived: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
        archive.extractall(folder, filter="data")
