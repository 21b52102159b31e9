"""All knobs, and the named pipelines."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from models.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from and how they are held out."""

    source: str
    """Name of a source, see `components.sources`."""
    data_dir: str | None = None
    """Folder of the source's files; `None`: where the source looks by itself."""
    source_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the source, such as smallNORB's `camera`."""
    anomaly: tuple[str, ...] = ("9",)
    """Names or indices of the classes held out as anomalies."""
    image_size: tuple[int, int] = (28, 28)
    """Height and width to which images are resized."""
    limit_per_class: int | None = None
    """Images kept of each class in each part of the data set; `None`: all."""
    eval_fraction: float = 0.05
    """Share of the normal training images watched in training."""
    calibration_fraction: float = 0.05
    """Share of the normal training images kept for calibration."""
    test_fraction: float = 0.2
    """Share of the normal images tested on, for sources without a test part."""
    balanced_test: bool = True
    """Whether as many normal images as anomalies are tested on, as in the paper; else all are."""
    max_unreadable: int = 0
    """Images that may be skipped because they cannot be decoded."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What is trained."""

    detector: str = "capsnet"
    """Name of a detector, see `models.detectors`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its settings, where they differ from its defaults."""
    strategy: str = "auto"
    """`auto`: all workers of the cluster that TF_CONFIG names, else every GPU of this machine, else
    its processor; `one_device`: one GPU or the processor."""


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """What a model must reach to be blessed and pushed."""

    min_auroc: float = 0.6
    """Smallest auROC of `anomaly_score`."""
    max_auroc_drop: float = 0.02
    """Largest fall of that auROC below the last blessed model's."""
    infra_validation: bool = False
    """Whether it must load and answer in TensorFlow Serving, started by the local docker."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the Trainer's container asks of the cluster."""

    cpus: float | None = None
    """CPU cores at most; `None`: as the cluster decides."""
    memory_gb: float | None = None
    """Memory at most, in gigabytes; `None`: as the cluster decides."""
    gpus: int = 0
    """Number of GPUs."""
    gpu_type: str = "nvidia.com/gpu"
    """Their resource name; on Vertex AI a type such as NVIDIA_TESLA_T4."""


@dataclass(frozen=True, kw_only=True)
class KubeflowConfig:
    """How a pipeline runs on Kubeflow Pipelines."""

    image: str
    """Container image with this package in it, see `Dockerfile`."""
    data_dir: str | None = None
    """Folder or file of the data as the containers see it: an absolute path, gs:// or s3://;
    `None`: where the source looks by itself."""
    trainer: Resources = Resources()
    """For the Trainer; the other components take what the cluster gives."""

    def __post_init__(self):
        if self.data_dir is not None and not self.data_dir.startswith(("/", "gs://", "s3://")):
            raise UserError(
                f"--data-dir is where the containers find the data: an absolute path, gs:// or "
                f"s3://, not '{self.data_dir}'."
            )


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """One pipeline."""

    name: str
    """Of the pipeline, as TFX knows it."""
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    gate: GateConfig = GateConfig()
    seed: int = 0
    """Seed of every draw."""
    output: str | None = None
    """Folder of everything that runs write; `None`: `runs/<name>-anomaly-<classes>`."""
    score_images: str | None = None
    """Unlabelled images that a blessed model scores, see `components.batch_scoring.inputs`."""
    beam_args: tuple[str, ...] = ()
    """Arguments of Beam, `--NAME=VALUE`, see `components.beam_args`."""

    @property
    def output_dir(self) -> str:
        """Absolute path of the output folder."""
        safe = "+".join(
            "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
            for name in self.data.anomaly
        )
        return os.path.abspath(self.output or os.path.join("runs", f"{self.name}-anomaly-{safe}"))


_PIPELINES = {
    config.name: config
    for config in (
        PipelineConfig(
            name="capsad_digits",
            # So few images need larger shares, for 100 calibration scores resolve alpha = 0.01.
            data=DataConfig(
                source="digits", image_size=(16, 16), eval_fraction=0.1, calibration_fraction=0.15
            ),
            training=TrainingConfig(
                settings={
                    "epochs": 15,
                    "batch_size": 50,
                    "learning_rate": 0.003,
                    "filters": 64,
                    "kernel_size": 5,
                    "primary_types": 8,
                    "primary_kernel_size": 5,
                    "decoder_units": (128, 256),
                }
            ),
        ),
        PipelineConfig(
            name="capsad_mnist",
            data=DataConfig(source="mnist"),
            training=TrainingConfig(settings={"epochs": 20, "shift": 2}),
        ),
        PipelineConfig(
            name="capsad_fashion_mnist",
            data=DataConfig(source="fashion_mnist"),
            training=TrainingConfig(settings={"epochs": 50}),
        ),
        PipelineConfig(
            name="capsad_smallnorb",
            data=DataConfig(source="smallnorb", anomaly=("car",), image_size=(48, 48)),
            training=TrainingConfig(
                settings={
                    "epochs": 50,
                    "batch_size": 64,
                    "crop_size": (32, 32),
                    "standardise": True,
                }
            ),
        ),
        PipelineConfig(
            name="capsad_images",
            data=DataConfig(source="images", anomaly=(), image_size=(32, 32)),
            training=TrainingConfig(settings={"epochs": 20, "standardise": True}),
        ),
    )
}


_OF_ALL = ("epochs", "batch_size")  # settings that every detector has


def names() -> tuple[str, ...]:
    """Names of the pipelines."""
    return tuple(_PIPELINES)


def get(name: str) -> PipelineConfig:
    """The named pipeline; `capsad_` may be left out.

    Raises:
        UserError: if there is none of that name.
    """
    full = name if name.startswith("capsad_") else f"capsad_{name}"
    if full not in _PIPELINES:
        short = [known.removeprefix("capsad_") for known in _PIPELINES]
        close = difflib.get_close_matches(full.removeprefix("capsad_"), short, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"Unknown data set '{name}': there are {', '.join(short)}.{hint}")
    return _PIPELINES[full]


def override(
    config: PipelineConfig,
    *,
    data_dir: str | None = None,
    anomaly: str | None = None,
    image_size: int | None = None,
    limit_per_class: int | None = None,
    max_unreadable: int | None = None,
    detector: str | None = None,
    epochs: int | None = None,
    settings: Mapping[str, Any] | None = None,
    strategy: str | None = None,
    min_auroc: float | None = None,
    infra_validation: bool | None = None,
    seed: int | None = None,
    output: str | None = None,
    score_images: str | None = None,
    beam_args: Sequence[str] | None = None,
) -> PipelineConfig:
    """Replaces what is not `None` or empty; `anomaly` is a list separated by commas."""
    data = config.data
    if data_dir is not None:
        data = replace(data, data_dir=os.path.abspath(data_dir))
        if data.source == "images" and data_dir.endswith(".npz"):
            data = replace(data, source="npz")
    if anomaly is not None:
        classes = tuple(name.strip() for name in anomaly.split(",") if name.strip())
        data = replace(data, anomaly=classes)
    if image_size is not None:
        data = replace(data, image_size=(image_size, image_size))
    if limit_per_class is not None:
        data = replace(data, limit_per_class=limit_per_class)
    if max_unreadable is not None:
        data = replace(data, max_unreadable=max_unreadable)

    training = config.training
    if detector is not None and detector != training.detector:
        # The settings are those of another detector; epochs and batches suit the data.
        kept = {name: training.settings[name] for name in _OF_ALL if name in training.settings}
        training = replace(training, detector=detector, settings=kept)
    changed = {**training.settings, **(settings or {})}
    if epochs is not None:
        changed["epochs"] = epochs
    training = replace(training, settings=changed, strategy=strategy or training.strategy)

    gate = config.gate
    if min_auroc is not None:
        gate = replace(gate, min_auroc=min_auroc)
    if infra_validation is not None:
        gate = replace(gate, infra_validation=infra_validation)
    return replace(
        config,
        data=data,
        training=training,
        gate=gate,
        seed=config.seed if seed is None else seed,
        output=output or config.output,
        score_images=score_images or config.score_images,
        beam_args=tuple(beam_args or config.beam_args),
    )


# Variable -> option of `override` and its type. CAPSAD_DATA_DIR is read by the sources themselves.
ENVIRONMENT = {
    "CAPSAD_ANOMALY": ("anomaly", str),
    "CAPSAD_IMAGE_SIZE": ("image_size", int),
    "CAPSAD_LIMIT_PER_CLASS": ("limit_per_class", int),
    "CAPSAD_DETECTOR": ("detector", str),
    "CAPSAD_EPOCHS": ("epochs", int),
    "CAPSAD_SEED": ("seed", int),
    "CAPSAD_OUTPUT": ("output", str),
    "CAPSAD_SCORE_IMAGES": ("score_images", str),
    "CAPSAD_BEAM_ARGS": ("beam_args", str.split),
}


def from_environment(name: str) -> PipelineConfig:
    """The pipeline `name` with what the CAPSAD_* variables override.

    Raises:
        UserError: if a variable's value is not of its type or the pipeline is unknown.
    """
    options = {}
    for variable, (option, kind) in ENVIRONMENT.items():
        value = os.environ.get(variable)
        if value:
            try:
                options[option] = kind(value)
            except ValueError:
                raise UserError(f"{variable} must be a whole number, not '{value}'.") from None
    return override(get(name), **options)
