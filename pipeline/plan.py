"""What will run, found out from the configuration and the labels before anything runs."""

import dataclasses
import hashlib
import os
from dataclasses import dataclass

from components.data import sources
from components.data.protocol import Assignment, Classes, hold_out, resolve_anomaly
from components.data.sources.base import Source
from components.data.splits import Split, load_splits
from components.serving.batch import inputs
from models import detectors
from models.detectors.base import Detector
from models.errors import UserError
from pipeline.beam_args import beam_args
from pipeline.configs import PipelineConfig


@dataclass(frozen=True)
class Plan:
    """A configuration whose data was found and fits; made once, then handed on."""

    config: PipelineConfig
    source: Source
    detector: Detector
    classes: Classes
    hold_out: dict[str, object]
    """Keyword arguments of `protocol.hold_out` that made the assignment."""
    assignment: Assignment

    @property
    def output(self) -> str:
        """Absolute path of the folder of everything that the run writes."""
        anomaly = "+".join(map(_file_name, self.classes.anomaly_names))
        folder = self.config.output or os.path.join("runs", f"{self.config.name}-anomaly-{anomaly}")
        return os.path.abspath(folder)

    def load_splits(self) -> dict[str, Split]:
        """Name of each split -> its images, in memory.

        Raises:
            UserError: if images cannot be decoded.
        """
        data = self.config.data
        return load_splits(
            self.source, self.classes, self.assignment, data.image_size, data.max_unreadable
        )


def plan(config: PipelineConfig, source: Source | None = None) -> Plan:
    """Finds the data and checks all that can be checked cheaply.

    Args:
        config: what is to be run.
        source: the data, where it was found and verified before.

    Raises:
        UserError: if the data is missing or damaged, or the configuration does not fit it.
    """
    beam_args(config.beam_args)
    if config.score_images:
        inputs.resolve(config.score_images)
    data = config.data
    detector = make_detector(config)
    source = source or find_source(config)
    classes = Classes(source.class_names, resolve_anomaly(data.anomaly, source.class_names))
    protocol = {
        "seed": config.seed,
        "eval_fraction": data.eval_fraction,
        "calibration_fraction": data.calibration_fraction,
        "test_fraction": data.test_fraction,
        "limit_per_class": data.limit_per_class,
        "balanced": data.balanced_test,
    }
    labels = source.labels()
    splits = hold_out(labels, classes.names, classes.anomaly, **protocol)
    return Plan(config, source, detector, classes, protocol, Assignment(labels, splits))


def make_detector(config: PipelineConfig) -> Detector:
    """The detector with its settings.

    Raises:
        UserError: if the detector or a setting is unknown, or only the code may set it.
    """
    name, settings = config.training.detector, config.training.all_settings
    allowed = {field.name for field in detectors.describe(name).settings()}
    common = {field.name for field in dataclasses.fields(Detector)}
    for setting in sorted(set(settings) & common - allowed):
        raise UserError(
            f"The setting '{setting}' of a detector is made by the run itself and cannot be given."
            + " Give the seed of the run instead." * (setting == "seed"),
            *(["seed"] if setting == "seed" else []),
        )
    return detectors.get(name, **settings)


def find_source(config: PipelineConfig) -> Source:
    """The verified data of `config`.

    Raises:
        UserError: if it is missing or damaged.
    """
    data = config.data
    if data.source == "images" and not data.location:
        raise UserError("The folder of images is not given.", "images")
    source = sources.get(data.source_name, data.location, **data.source_options)
    source.verify()
    return source


def _file_name(class_name: str) -> str:
    """A part of a file's name for a class; no two classes have the same."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in class_name)
    if safe == class_name:
        return safe
    return f"{safe}-{hashlib.sha256(class_name.encode()).hexdigest()[:6]}"


def check_docker() -> None:
    """Raises a UserError if infra validation could not start its container."""
    import docker  # Imported here, because only few runs need it.

    try:
        docker.from_env().ping()
    except docker.errors.DockerException:
        raise UserError(
            "Infra validation starts TensorFlow Serving by docker, which does not answer: start "
            "docker, or run without it.",
            "infra_validation",
        ) from None
