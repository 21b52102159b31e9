"""Every knob once, and the named pipelines."""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import click

from models import detectors
from models.errors import UserError
from pipeline.knobs import PREFIX, Knob, knob, knobs
from pipeline.parameters import (
    FiniteRange,
    ForComponent,
    ImageSize,
    Matching,
    NameValue,
    OutputFolder,
    Pair,
)

# Variables that are no knobs: the first chooses a pipeline, the second is read by the sources.
_PIPELINE, _DATA_DIR = "CAPSAD_PIPELINE", "CAPSAD_DATA_DIR"

DEFAULT_DETECTOR = "capsnet"
LEAST_AUROC = 0.6
"""Smallest auROC of a blessed model where none is required."""
# Settings of detectors that are also knobs of their own, and what their values are.
_OWN_KNOBS = {
    "epochs": (int, "a whole number"),
    "batch_size": (int, "a whole number"),
    "weights": (str, "a text"),
}
_SHARE = FiniteRange(0, 1, min_open=True, max_open=True)
_POSITIVE = click.IntRange(min=1)
_COUNT = click.IntRange(min=0)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from and how they are held out."""

    source: str
    """Name of a source, see `components.data.sources`."""
    images: str | None = knob(
        None, "Folder of class folders of images, or an .npz file.", metavar="DIR"
    )
    data_dir: str | None = knob(
        None, "Folder of the data set's files.", metavar="DIR", variable=False
    )
    source_options: Mapping[str, Any] = knob(
        {},
        "An option of the data set, such as camera=right for smallnorb; may be repeated.",
        NameValue(),
        option="--source-option",
        metavar="NAME=VALUE",
        many="words",
    )
    anomaly: tuple[str, ...] = knob(
        ("9",),
        "A class to hold out as an anomaly, or several with commas between them; may be repeated, "
        "as for a class whose name has a comma.  [default: depends on the data]",
        metavar="CLASS",
        many="one",
    )
    image_size: tuple[int, int] | None = knob(
        (28, 28),
        "Size to which images are resized: 28, or height x width.  [default: depends on the data]",
        ImageSize(),
    )
    limit_per_class: int | None = knob(
        None, "Largest number of images that are used of each class in each part.", _POSITIVE
    )
    eval_fraction: float = knob(
        0.05,
        "Share of the normal training images that is watched in training.  [default: depends on "
        "the data]",
        _SHARE,
    )
    calibration_fraction: float = knob(
        0.05,
        "Share of the normal training images that is kept for calibration.  [default: depends on "
        "the data]",
        _SHARE,
    )
    test_fraction: float = knob(
        0.2, "Share of the normal images that is tested on, if there is no test part.", _SHARE
    )
    balanced_test: bool = knob(
        True, "Test on as many normal images as anomalies, as in the paper, or on all.", bool
    )
    split_seed: int = knob(
        0,
        "Seed of the splits, which otherwise follow from the content of the images alone.",
        click.IntRange(0, 2**32 - 1),
    )
    max_pixels: int = knob(
        100_000_000, "Largest number of pixels of an image; larger ones are unreadable.", _POSITIVE
    )
    max_unreadable: int = knob(
        0, "Largest number of images that may be skipped as unreadable.", _COUNT
    )

    @property
    def source_name(self) -> str:
        """Name of the source that reads the data."""
        return "npz" if self.images and self.images.endswith(".npz") else self.source

    @property
    def location(self) -> str | None:
        """Absolute path of the data; `None`: the source looks by itself."""
        path = self.images or self.data_dir
        return path and os.path.abspath(os.path.expanduser(path))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What is trained."""

    detector: str | None = knob(
        "capsnet",
        "Name of the detector, see `capsad detectors`.  [default: capsnet; for own images it is "
        "chosen by the data]",
        metavar="NAME",
    )
    epochs: int | None = knob(
        None, "Passes over the training images; without it the detector's own number.", _POSITIVE
    )
    batch_size: int | None = knob(
        None, "Images in a training step; without it the detector's own number.", _POSITIVE
    )
    settings: Mapping[str, Any] = knob(
        {},
        "A setting of the detector; may be repeated.",
        NameValue(),
        option="--set",
        metavar="NAME=VALUE",
        many="words",
    )
    weights: str | None = knob(
        None, "File of weights for the detector's backbone, in place of ImageNet's.", metavar="FILE"
    )
    strategy: str = knob(
        "auto",
        "Train on every GPU and every worker of TF_CONFIG, or on one device.",
        click.Choice(["auto", "one_device"]),
    )
    alpha: float = knob(
        0.05,
        "Share of normal images that the pushed model's own verdict may flag by mistake.",
        FiniteRange(0, 1, min_open=True, max_open=True),
    )
    serving_device: str = knob(
        "cpu",
        "Device that the pushed model is built for; it runs on the other one more slowly.",
        click.Choice(["cpu", "gpu"]),
    )

    @property
    def all_settings(self) -> dict[str, Any]:
        """The detector's settings, where they differ from its defaults."""
        weights = self.weights
        if weights not in (None, "imagenet", "none"):
            weights = os.path.abspath(os.path.expanduser(weights))
        given = {"epochs": self.epochs, "batch_size": self.batch_size, "weights": weights}
        return {**self.settings, **{name: n for name, n in given.items() if n is not None}}


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """What a model must reach to be blessed and pushed."""

    min_auroc: float | None = knob(
        None,
        "Smallest auROC of anomaly_score that you require, at the lower end of its 95 % interval; "
        f"below it a model is not pushed.  [default: {LEAST_AUROC:g}]",
        FiniteRange(0, 1),
    )
    max_auroc_drop: float = knob(
        0.02, "Largest fall of that auROC below the last blessed model's.", FiniteRange(0, 1)
    )
    infra_validation: bool = knob(
        False, "Push only what TensorFlow Serving, started by docker, loads and answers with.", bool
    )


_VARIABLE = r"[A-Za-z_]\w*"
_KUBERNETES_NAME = r"[a-z0-9](?:[-.a-z0-9]*[a-z0-9])?"
_IMAGE_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = Matching(
    rf"(?:[A-Za-z0-9][-.A-Za-z0-9]*(?::\d+)?/)?{_IMAGE_PART}(?:/{_IMAGE_PART})*"
    r"(?::\w[-.\w]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    "the name of an image such as HOST/capsad:1",
)
TOLERATION = Matching(
    r"(?P<key>[-./\w]+)(?:=(?P<value>[-.\w]*))?"
    r"(?::(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?",
    "of the form KEY=VALUE:EFFECT, where VALUE and EFFECT may be left out and EFFECT is "
    "NoSchedule, PreferNoSchedule or NoExecute",
)


@dataclass(frozen=True, kw_only=True)
class Containers:
    """What the containers get from the cluster."""

    cpus: Mapping[str, float] = knob(
        {},
        "CPU cores at most, for each component or for one of them; may be repeated.",
        ForComponent(),
        metavar="[COMPONENT=]NUMBER",
        many="words",
    )
    memory_gb: Mapping[str, float] = knob(
        {},
        "Memory at most, in gigabytes, for each component or for one of them; may be repeated.",
        ForComponent(),
        metavar="[COMPONENT=]NUMBER",
        many="words",
    )
    gpus: int = knob(0, "Number of GPUs for the Trainer.", _COUNT)
    gpu_type: str = knob(
        "nvidia.com/gpu",
        "Resource name of these GPUs; on Vertex AI a type such as NVIDIA_TESLA_T4.",
        metavar="TYPE",
    )
    volumes: Mapping[str, str] = knob(
        {},
        "A folder where the containers find a persistent volume, and its claim; may be repeated.",
        Pair(r"/[^=]*", _KUBERNETES_NAME, "/FOLDER=CLAIM"),
        option="--volume",
        metavar="/FOLDER=CLAIM",
        many="words",
    )
    secrets: Mapping[str, str] = knob(
        {},
        "A variable of the containers, and the secret and its key that hold its value; may be "
        "repeated.",
        Pair(_VARIABLE, rf"{_KUBERNETES_NAME}/[-.\w]+", "VARIABLE=SECRET/KEY"),
        option="--secret",
        metavar="VARIABLE=SECRET/KEY",
        many="words",
    )
    env: Mapping[str, str] = knob(
        {},
        "A variable of the containers, and its value; may be repeated.",
        Pair(_VARIABLE, ".*", "VARIABLE=VALUE"),
        metavar="VARIABLE=VALUE",
        many="words",
    )
    tolerations: tuple[str, ...] = knob(
        (),
        "A taint of nodes that the containers tolerate; may be repeated.",
        TOLERATION,
        option="--toleration",
        metavar="KEY[=VALUE][:EFFECT]",
        many="words",
    )
    retries: int = knob(0, "How often a component that failed is tried again.", _COUNT)


@dataclass(frozen=True, kw_only=True)
class KubeflowConfig:
    """How a pipeline runs on Kubeflow Pipelines."""

    image: str = knob(
        "",
        "Image of the containers, with this package in it, see Dockerfile.",
        _IMAGE,
        metavar="IMAGE",
    )
    data_dir: str | None = knob(
        None,
        "Folder or file of the data as the containers see it: an absolute path, gs:// or s3://.",
        Matching(
            r"(?s:(?:/|gs://|s3://).*)", "an absolute path, nor does it begin by gs:// or s3://"
        ),
        metavar="DIR",
        variable=False,
    )
    containers: Containers = Containers()

    def __post_init__(self):
        if not self.image:
            raise UserError("The image of the containers is missing.", "image")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """One pipeline."""

    name: str
    """Name of the pipeline in TFX."""
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    gate: GateConfig = GateConfig()
    seed: int = knob(0, "Seed of the training.", click.IntRange(0, 2**32 - 1))
    output: str | None = knob(
        None,
        "Folder for everything that the run writes.  [default: runs/NAME-anomaly-CLASS]",
        OutputFolder(),
        metavar="DIR",
    )
    score_images: str | None = knob(
        None,
        "Unlabelled images that a blessed model scores: a folder, a manifest or TFRecords.",
        metavar="INPUT",
    )
    beam_args: tuple[str, ...] = knob(
        (),
        "An argument of Apache Beam; may be repeated.  [default: --runner=FnApiRunner, which is "
        "this process]",
        option="--beam-arg",
        metavar="--NAME=VALUE",
        many="words",
    )


def override(config: Any, **values: Any) -> Any:
    """The configuration with other values of its knobs.

    The settings of another detector go when the detector changes; epochs, batch size and weights,
    which suit the data, stay if the new detector has them. These are also taken from the settings.

    Args:
        config: a dataclass with knobs.
        **values: name of a knob -> value, as text or in the field's type; `None` and empty
            collections leave the knob as it is.

    Raises:
        UserError: if a value is out of range, or two values contradict each other.
    """
    known = {found.name: found for found in knobs(type(config))}
    converted = _converted(known, _present(values))
    if "settings" in converted or "detector" in converted:
        training = config.training
        former = training.detector or DEFAULT_DETECTOR
        same = converted.get("detector", former) == former
        kept = training.settings if same else {}
        converted["settings"] = {**kept, **converted.get("settings", {})}
        if not same:
            settings = detectors.describe(converted["detector"]).settings()
            for name in _OWN_KNOBS.keys() - {field.name for field in settings}:
                converted.setdefault(name, None)
    changes: dict[str, dict[str, Any]] = {}
    for name, value in converted.items():
        changes.setdefault(known[name].section, {})[name] = value
    for section in filter(None, list(changes)):
        part = replace(getattr(config, section), **changes.pop(section))
        changes.setdefault("", {})[section] = part
    return replace(config, **changes.get("", {}))


def _converted(known: dict[str, Knob], values: dict[str, Any]) -> dict[str, Any]:
    """The values in the types of their knobs; those with a knob of their own leave the settings."""
    converted = {name: known[name].convert(value) for name, value in values.items()}
    for name, (kind, wanted) in _OWN_KNOBS.items():
        if name in converted.get("settings", {}):
            if name in converted:
                raise UserError(f"{name} is given twice, also among the settings.", name)
            value = converted["settings"].pop(name)
            if type(value) is not kind:  # which click would convert
                raise UserError(f"{name} must be {wanted}, not {value!r}.", name)
            converted[name] = known[name].convert(value)
    return converted


_PIPELINES = {
    config.name: config
    for config in (
        PipelineConfig(
            name="capsad_digits",
            # Larger shares of so few images: 100 calibration scores resolve alpha = 0.01.
            data=DataConfig(
                source="digits", image_size=(16, 16), eval_fraction=0.1, calibration_fraction=0.15
            ),
            training=TrainingConfig(
                epochs=15,
                batch_size=50,
                settings={
                    "learning_rate": 0.003,
                    "filters": 64,
                    "kernel_size": 5,
                    "primary_types": 8,
                    "primary_kernel_size": 5,
                    "decoder_units": (128, 256),
                },
            ),
        ),
        PipelineConfig(
            name="capsad_mnist",
            data=DataConfig(source="mnist"),
            training=TrainingConfig(epochs=20, settings={"shift": 2}),
        ),
        PipelineConfig(
            name="capsad_fashion_mnist",
            data=DataConfig(source="fashion_mnist"),
            training=TrainingConfig(epochs=50),
        ),
        PipelineConfig(
            name="capsad_smallnorb",
            # Whole toys go into a split, and there are few: five of each kind.
            data=DataConfig(
                source="smallnorb",
                anomaly=("car",),
                image_size=(48, 48),
                eval_fraction=0.15,
                calibration_fraction=0.2,
            ),
            training=TrainingConfig(
                epochs=50,
                batch_size=64,
                settings={"crop_size": (32, 32), "standardise": True},
            ),
        ),
        PipelineConfig(
            name="capsad_images",
            # Detector, settings and size follow from the images, see `pipeline.plan`.
            data=DataConfig(
                source="images",
                anomaly=(),
                image_size=None,
                eval_fraction=0.1,
                calibration_fraction=0.15,
            ),
            training=TrainingConfig(detector=None),
        ),
    )
}


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


def configure(name: str | None = None, **given: Any) -> PipelineConfig:
    """The pipeline that a command describes, with the CAPSAD_* variables under it.

    Args:
        name: name of the data set; `None`: `images` where images are given, else what
            CAPSAD_PIPELINE names, else `images` where CAPSAD_IMAGES names some, else `digits`.
        **given: as for `override`; what is given here goes before a variable, and a data set or
            its folder before the variable of other data.

    Raises:
        UserError: if both a data set and images are given, or something is unknown or out of range.
    """
    known = {found.name: found for found in knobs(PipelineConfig)}
    values = _converted(known, from_environment(PipelineConfig))
    given = _converted(known, _present(given))
    if "data_dir" in given or (name and get(name).data.source != "images"):
        values.pop("images", None)
    values |= given
    named = name or ("" if "images" in given else os.environ.get(_PIPELINE))
    config = get(named or ("images" if "images" in values else "digits"))
    if "images" not in values:
        return override(config, **values)
    if config.data.source != "images":
        shown = name or f"{_PIPELINE}={named}"
        raise UserError(
            f"Give either a data set ('{shown}') or a folder of images, not both.", "images"
        )
    if "data_dir" in values:
        raise UserError("Give either a folder of images or a data folder, not both.", "images")
    return override(config, **values)


def configure_kubeflow(**given: Any) -> KubeflowConfig:
    """The configuration of Kubeflow that a command describes, with the variables under it.

    Raises:
        UserError: if the image is missing or a value is out of range.
    """
    values = {**from_environment(KubeflowConfig), **_present(given)}
    known = {found.name: found for found in knobs(KubeflowConfig)}
    converted = {name: known[name].convert(value) for name, value in values.items()}
    own = {name: v for name, v in converted.items() if not known[name].section}
    containers = {name: v for name, v in converted.items() if known[name].section}
    return KubeflowConfig(**own, containers=Containers(**containers))


def from_environment(config_class: type) -> dict[str, Any]:
    """The values of the knobs whose CAPSAD_* variables are set.

    Raises:
        UserError: naming the variable, if a value is out of range.
    """
    values = {}
    for found in knobs(config_class):
        text = os.environ.get(found.variable or "")
        if not text:
            continue
        try:
            values[found.name] = found.convert(found.split(text))
        except ValueError as error:  # UserError, or shlex's for a quotation without an end
            raise UserError(f"{found.variable}: {error}") from None
    return values


def unknown_variables() -> Iterator[str]:
    """A sentence for each CAPSAD_* variable that nothing reads."""
    known = {_PIPELINE, _DATA_DIR}
    for config_class in (PipelineConfig, KubeflowConfig):
        known |= {found.variable for found in knobs(config_class) if found.variable}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            yield f"The variable {name} is unknown and has no effect.{hint}"


def _present(values):
    return {name: value for name, value in values.items() if value is not None and value != ()}
