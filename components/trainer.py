"""What the stock Trainer runs."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import keras
from tfx.components.trainer.fn_args_utils import FnArgs

from components.examples import load_split
from components.serving import export, write_warmup_requests
from models import detectors

_WARMUP_IMAGES = 8


def run_fn(fn_args: FnArgs) -> None:
    """Fits the detector, calibrates it, writes model, SavedModel, history and TensorBoard logs.

    `fn_args.custom_config` holds `detector`, its `settings`, `image_size` and `seed`. A run that
    was killed goes on after its last whole epoch. Next to the SavedModel (`serving_model_dir`),
    `model_run_dir` gets `model.keras`, `history.json` and the TensorBoard logs.

    Raises:
        UserError: if the data or the settings do not suit the detector, or training diverges.
    """
    config = fn_args.custom_config
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

    detector = detectors.get(
        config["detector"],
        **config["settings"],
        seed=config["seed"],
        verbose=1 if sys.stdout.isatty() else 2,
        backup_dir=str(backup_dir),
    )
    scorer = detector.fit(
        train.images,
        train.labels,
        validation=(validation.images, validation.labels),
        calibration=calibration.images,
        callbacks=(keras.callbacks.TensorBoard(str(run_dir), write_graph=False),),
    )
    class_names = dict(zip(train.labels.tolist(), train.texts.tolist(), strict=True))
    export(
        scorer,
        image_size,
        fn_args.serving_model_dir,
        [class_names[label] for label in sorted(class_names)],
    )
    write_warmup_requests(fn_args.serving_model_dir, validation.images[:_WARMUP_IMAGES])
    scorer.save(run_dir / "model.keras")
    (run_dir / "history.json").write_text(
        json.dumps({"history": detector.history, "seconds": detector.seconds})
    )
    shutil.rmtree(backup_dir, ignore_errors=True)
