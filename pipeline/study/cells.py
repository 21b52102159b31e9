"""The cells of a study: detectors x anomalies x seeds on one data set."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from models.errors import UserError
from pipeline.configs import PipelineConfig, override
from pipeline.digest import file_digest, own_digest
from pipeline.plan import Plan, find_source, plan

HOLD_OUT = "hold-out"
OPEN_SET = "open-set-6-4"
# The five splits of Neal et al. 2018, Open set learning with counterfactual images, ECCV, which
# other papers use, too: six known classes, four unknown classes, and the whole test part.
KNOWN = ("245983", "326940", "583246", "378405", "634982")


@dataclass(frozen=True)
class Cell:
    """One training and its test."""

    plan: Plan
    protocol: str

    @property
    def config(self) -> PipelineConfig:
        """Configuration of the cell."""
        return self.plan.config

    @cached_property
    def about(self) -> dict[str, Any]:
        """What is known of the result before the training: the columns of `results.csv`."""
        data, detector = self.config.data, self.plan.detector
        return {
            "data_set": data.source_name,
            "protocol": self.protocol,
            "anomaly": ",".join(self.plan.classes.anomaly_names),
            "detector": detector.name,
            "seed": self.config.seed,
            "epochs": detector.epochs,
            "limit_per_class": data.limit_per_class,
            "data": {"image_size": list(self.plan.image_size), **data.source_options},
            "settings": {
                field.name: getattr(detector, field.name)
                for field in detector.settings()
                if getattr(detector, field.name) != field.default
            },
        }

    @cached_property
    def name(self) -> str:
        """Name of the cell, which is different for all that results depend on but the code."""
        data, detector = self.config.data, self.plan.detector
        settings = {field.name: getattr(detector, field.name) for field in detector.settings()}
        if content := file_digest(self.config.training.weights):
            settings["weights"] = content
        parts = {
            "source": data.source_name,
            "source_options": dict(data.source_options),
            "data": self.plan.held_out.index.fingerprint,
            "anomaly": self.plan.classes.anomaly,
            "image_size": self.plan.image_size,
            "hold_out": self.plan.hold_out,
            "detector": detector.name,
            "settings": settings,
            "seed": self.config.seed,
            "backend": backend_name(),
        }
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
        anomaly = "+".join(map(str, self.plan.classes.anomaly))
        return f"{data.source_name}-{anomaly}-{detector.name}-{self.config.seed}-{digest}"

    @cached_property
    def code(self) -> str:
        """Digest of the code that makes the result: of the detector, the source and the metrics."""
        return own_digest(
            type(self.plan.detector).__module__,
            type(self.plan.source).__module__,
            "components.data.protocol",
            "models.metrics",
        )

    @cached_property
    def passes(self) -> int:
        """Number of images times epochs. Images of `eval` and `calibration` are counted, too."""
        labels = self.plan.held_out.index.parts["train"].labels
        counts = np.bincount(labels, minlength=len(self.plan.classes.names))
        counts = np.delete(counts, self.plan.classes.anomaly)
        counts = counts.clip(max=self.config.data.limit_per_class or counts.max())
        return int(counts.sum()) * self.plan.detector.epochs


def make_cells(
    config: PipelineConfig,
    detector_names: Sequence[str],
    anomalies: Sequence[str],
    seeds: Sequence[int],
    protocol: str = HOLD_OUT,
) -> list[Cell]:
    """Makes a cell for each combination, and checks them before anything is trained.

    Args:
        config: configuration of the data set.
        detector_names: names of detectors.
        anomalies: lists of classes with commas between them. If there are none, the protocol
            chooses the anomalies: `HOLD_OUT` takes each class in turn.
        seeds: seeds of splits and training.
        protocol: `HOLD_OUT` or `OPEN_SET`.

    Raises:
        UserError: if data is missing, or if a combination is not possible.
    """
    source = find_source(config)
    if protocol == OPEN_SET:
        if anomalies:
            raise UserError(f"The protocol {OPEN_SET} chooses the classes: give none.", "anomalies")
        if len(source.class_names) != 10:
            raise UserError(f"The protocol {OPEN_SET} needs a data set of ten classes.")
        anomalies = [",".join(sorted(set("0123456789") - set(known))) for known in KNOWN]
        config = replace(config, data=replace(config.data, balanced_test=False))
    cells = []
    for anomaly in anomalies or source.class_names:
        for detector in detector_names:
            for seed in seeds:
                chosen = override(config, detector=detector, anomaly=anomaly, seed=seed)
                cells.append(Cell(plan(chosen, source), protocol))
    return cells


def backend_name() -> str:
    """Returns the name of Keras's backend."""
    import keras  # Keras is imported here, because it takes seconds to load.

    return keras.backend.backend()
