"""What can be told from the configuration and the labels before anything runs."""

from dataclasses import dataclass

from components import sources
from components.example_gen.hold_out import hold_out, resolve_anomaly
from components.sources.base import Source
from components.splits import Split, load_splits
from models import detectors
from models.detectors.base import Detector
from models.errors import UserError
from pipeline.configs import PipelineConfig


@dataclass(frozen=True)
class Plan:
    """A configuration whose data was found and fits."""

    config: PipelineConfig
    source: Source
    detector: Detector
    anomaly: tuple[int, ...]
    hold_out: dict[str, object]

    @property
    def normal_classes(self) -> tuple[str, ...]:
        """Names of the normal classes, in the order of their labels."""
        names = self.source.class_names
        return tuple(name for index, name in enumerate(names) if index not in self.anomaly)

    @property
    def anomaly_classes(self) -> tuple[str, ...]:
        """Names of the anomalous classes."""
        return tuple(self.source.class_names[index] for index in self.anomaly)

    def load_splits(self) -> dict[str, Split]:
        """Name of each split -> its images, in memory.

        Raises:
            UserError: if images cannot be decoded.
        """
        data = self.config.data
        return load_splits(
            self.source, self.anomaly, self.hold_out, data.image_size, data.max_unreadable
        )


def plan(config: PipelineConfig, source: Source | None = None) -> Plan:
    """Finds the data and checks all that can be checked cheaply.

    Args:
        config: what is to be run.
        source: the data, where it was found and verified before.

    Raises:
        UserError: if the data is missing or damaged, or the configuration does not fit it.
    """
    data, training = config.data, config.training
    detector = detectors.get(training.detector, **training.settings)
    source = source or find_source(config)
    anomaly = resolve_anomaly(data.anomaly, source.class_names)
    protocol = {
        "seed": config.seed,
        "eval_fraction": data.eval_fraction,
        "calibration_fraction": data.calibration_fraction,
        "test_fraction": data.test_fraction,
        "limit_per_class": data.limit_per_class,
        "balanced": data.balanced_test,
    }
    hold_out(source.labels(), source.class_names, anomaly, **protocol)
    return Plan(config, source, detector, anomaly, protocol)


def find_source(config: PipelineConfig) -> Source:
    """The verified data of `config`.

    Raises:
        UserError: if it is missing or damaged.
    """
    data = config.data
    source = sources.get(data.source, data.data_dir, **data.source_options)
    source.verify()
    return source


def check_docker() -> None:
    """Raises a UserError if infra validation could not start its container."""
    import docker

    try:
        docker.from_env().ping()
    except docker.errors.DockerException:
        raise UserError(
            "--infra-validation starts TensorFlow Serving by docker, which does not answer: start "
            "docker, or leave the option out."
        ) from None
