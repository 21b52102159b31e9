"""What will run, found out from the configuration and the labels before anything runs."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.data import sources
from components.data.folder import UNREADABLE, Table, printable
from components.data.index import HeldOut
from components.data.protocol import (
    CALIBRATION,
    SPLITS,
    Classes,
    hold_out,
    only_tested,
    resolve_anomaly,
)
from components.data.sources.base import Source
from components.data.splits import Split, check_unreadable, load_splits
from components.serving.batch import inputs
from models import detectors
from models.detectors.base import Detector
from models.errors import UserError
from models.sampling import BALANCE
from pipeline import configs
from pipeline.beam_args import beam_args
from pipeline.configs import PipelineConfig, override

_FEW_TESTED = 20
_FEW_TRAINED = 10  # of a class
_FEW_GROUPS = 100
_SMALL, _LARGE = (32, 32), (224, 224)  # without and with a backbone
_STEP = 32  # pixels of an image for one place of a backbone's last feature map
_LONGEST = 4  # largest ratio of the sides of a size that is chosen
_BLOWN_UP, _SHRUNK = 1.5, 4  # how many times larger or smaller a side may become without a word
_PHOTOGRAPH = 64  # pixels of the shorter side from which an image is a photograph
# Settings of capsnet for images of a folder, which the user's own settings override.
_ON_BACKBONE = {
    "backbone": "mobilenet",
    "primary_types": 16,
    "decoder_units": (512,),
    "learning_rate": 0.002,
}
_ON_PIXELS = {"standardise": True}
_BATCH_SIZE = 32  # Of a few hundred photographs, larger ones make too few steps.
_ALPHA = 0.05  # as `capsad score` flags by default


@dataclass(frozen=True)
class Plan:
    """A configuration whose data was found and fits; made once, then handed on."""

    config: PipelineConfig
    source: Source
    detector: Detector
    classes: Classes
    hold_out: dict[str, Any]
    """Keyword arguments of `protocol.hold_out` that assigned the images."""
    held_out: HeldOut
    choice: str
    """What was chosen by the data, and why; empty if nothing was left to choose."""
    image_size: tuple[int, int]
    """Height and width to which images are resized."""

    @property
    def source_options(self) -> dict[str, Any]:
        """Options of the source, see `sources.find`."""
        return source_options(self.config)

    @property
    def table(self) -> Table:
        """What became of the files of a folder of images; empty for other data."""
        return self.source.table

    @property
    def unreadable(self) -> int:
        """Number of files that could not be read."""
        return self.table.counts.get(UNREADABLE, 0)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Split -> class -> number of images, for classes that have some."""
        labels = np.concatenate([part.labels for part in self.held_out.index.parts.values()])
        splits = np.concatenate(list(self.held_out.splits.values()))
        counted = {}
        for index, split in enumerate(SPLITS):
            counts = np.bincount(labels[splits == index], minlength=len(self.classes.names))
            named = zip(self.classes.names, counts.tolist(), strict=True)
            counted[split] = {name: count for name, count in named if count}
        return counted

    @property
    def output(self) -> str:
        """Absolute path of the folder of everything that the run writes."""
        anomaly = "+".join(map(_file_name, self.classes.anomaly_names))
        folder = self.config.output or os.path.join("runs", f"{self.config.name}-anomaly-{anomaly}")
        return os.path.abspath(folder)

    @property
    def warnings(self) -> list[str]:
        """Sentences about the data that the user must know."""
        return list(_warnings(self))

    def load_splits(self) -> dict[str, Split]:
        """Name of each split -> its images, in memory.

        Raises:
            UserError: if images cannot be decoded.
        """
        data = self.config.data
        return load_splits(
            self.source,
            self.classes,
            self.held_out,
            self.image_size,
            data.max_unreadable,
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
    source = source or find_source(config)
    data = config.data
    check_unreadable(source.table.names.get(UNREADABLE, []), data.max_unreadable)
    only_in_test = () if data.anomaly else only_tested(source.index())
    anomaly = data.anomaly or only_in_test
    classes = Classes(source.class_names, resolve_anomaly(anomaly, source.class_names))
    config, choice = choose(config, source, classes)
    if only_in_test:
        found = f"Anomalies are the classes that only test has: {', '.join(only_in_test)}."
        choice = f"{found} {choice}".rstrip()
    detector = make_detector(config)
    _check_number_of_classes(detector, classes)
    protocol: dict[str, Any] = {
        "split_seed": data.split_seed,
        "eval_fraction": data.eval_fraction,
        "calibration_fraction": data.calibration_fraction,
        "test_fraction": data.test_fraction,
        "limit_per_class": data.limit_per_class,
        "balanced": data.balanced_test,
    }
    held_out = hold_out(source.index(), classes.anomaly, **protocol)
    size = config.data.image_size or _SMALL
    return Plan(config, source, detector, classes, protocol, held_out, choice, size)


def choose(config: PipelineConfig, source: Source, classes: Classes) -> tuple[PipelineConfig, str]:
    """Chooses the detector and the size of the images where the configuration leaves them open.

    Returns:
        The configuration without open choices, and a sentence on what was chosen and why.
    """
    # All other data sets come with all of it.
    size = usual_size(source) if config.data.source == "images" else None
    side = min(size or (0,))
    normal = len(classes.normal_names)
    reasons, chosen = [], []
    if config.training.detector is None:
        name = configs.DEFAULT_DETECTOR
        if normal == 1:
            name = "patch_knn" if side >= _PHOTOGRAPH else "vae"
        reasons.append("one normal class" if normal == 1 else f"{normal} normal classes")
        chosen.append(f"detector {name}")
        # What was given for another detector stays, so that it is refused and not dropped.
        training = dataclasses.replace(config.training, detector=name)
        config = dataclasses.replace(config, training=training)
    given = config.data.image_size
    if config.training.detector == "capsnet" and config.data.source == "images":
        settings = config.training.settings
        is_photograph = (min(given) if given else side) >= _PHOTOGRAPH
        preset = _ON_BACKBONE if is_photograph or "backbone" in settings else _ON_PIXELS
        config = override(config, settings={**preset, **settings})
        if preset is _ON_BACKBONE:
            config = override(config, batch_size=config.training.batch_size or _BATCH_SIZE)
            if "backbone" not in settings:
                chosen.append(f"backbone {_ON_BACKBONE['backbone']}")
    if given is None:
        wanted = _SMALL
        if getattr(make_detector(config), "backbone", None):
            wanted = _large(size) if size else _LARGE
        reasons.append(
            f"images of about {_text(size)} pixels" if size else "images of unknown size"
        )
        chosen.append(f"images resized to {_text(wanted)}")
        config = override(config, image_size=wanted)
    if not chosen:
        return config, ""
    return config, f"Chosen for {' and '.join(reasons)}: {', '.join(chosen)}."


def usual_size(source: Source) -> tuple[int, int] | None:
    """Median height and width of the images; `None` if it is not known."""
    if source.infos:
        height, width = np.median([(info.height, info.width) for info in source.infos], axis=0)
        return int(height), int(width)
    first = next(iter(source.stored("train", 0, 1)), None)
    return (first.shape[0], first.shape[1]) if isinstance(first, np.ndarray) else None


def _large(size: tuple[int, int]) -> tuple[int, int]:
    """About as many pixels as 224x224 in the proportions of `size`, by steps of a backbone's 32."""
    ratio = np.clip(size[1] / size[0], 1 / _LONGEST, _LONGEST)
    side = _LARGE[0] / _STEP
    height, width = (max(1, round(side * n)) * _STEP for n in (ratio**-0.5, ratio**0.5))
    return height, width


def _text(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def _check_number_of_classes(detector: Detector, classes: Classes) -> None:
    normal = len(classes.normal_names)
    if normal >= detector.least_classes:
        return
    able = [name for name in detectors.names() if detectors.describe(name).least_classes <= normal]
    raise UserError(
        f"The anomaly {', '.join(classes.anomaly_names)} leaves only the normal class "
        f"'{classes.normal_names[0]}', and the detector {detector.name} needs at least "
        f"{detector.least_classes}. With one normal class take one of {', '.join(able)}.",
        "detector",
        "anomaly",
    )


def _warnings(made: Plan) -> Iterator[str]:
    yield from made.source.warnings
    repeated = made.held_out.repeated
    if repeated:
        first, other = map(printable, repeated[0])
        yield (
            f"{len(repeated)} images to test on are identical to images to train on and are left "
            f"out of the test; the first is {first}, the same as {other}."
        )
    counts = made.counts
    train = {name: counts["train"][name] for name in made.classes.normal_names}
    rarest, largest = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    if train[rarest] < _FEW_TRAINED:
        yield (
            f"The class '{rarest}' has only {train[rarest]} images to train on, so hardly anything "
            "can be learned about it."
        )
    if train[largest] > BALANCE * train[rarest]:
        yield (
            f"The class '{rarest}' has only {train[rarest]} images to train on, and '{largest}' "
            f"has {train[largest]}. In training, images of rare classes are repeated, up to 1 in "
            f"{BALANCE} of the largest class."
        )
    if made.config.data.source == "images":  # The other sizes are ours.
        yield from _size_warnings(usual_size(made.source), made.image_size)
    tested = sum(counts["test"].values())
    if tested < _FEW_TESTED:
        yield f"There are only {tested} images to test on, so the results are very uncertain."
    yield from _group_warnings(made.held_out)
    least = 1 / (sum(counts["calibration"].values()) + 1)
    if least >= _ALPHA:
        yield (
            f"There are too few images to calibrate on: no alpha up to {least:.2g} can ever flag "
            "an image. Add images, or raise the calibration fraction."
        )


def _group_warnings(held_out: HeldOut) -> Iterator[str]:
    groups: set[int] = set()
    for name, part in held_out.index.parts.items():
        groups |= set(part.groups[held_out.splits[name] == CALIBRATION].tolist())
    groups.discard(-1)  # of images of no group
    if 0 < len(groups) < _FEW_GROUPS:
        yield (
            f"The images to calibrate on are of only {len(groups)} groups of images that belong "
            "together, so the rate of false alarms on other groups may be far from alpha."
        )


def _size_warnings(size: tuple[int, int] | None, image_size: tuple[int, int]) -> Iterator[str]:
    if size is None:
        return
    # The border that keeps the proportions does not count.
    scale = min(new / old for new, old in zip(image_size, size, strict=True))
    if scale > _BLOWN_UP:
        yield (
            f"Images of about {_text(size)} pixels are blown up to {_text(image_size)}, which adds "
            "nothing to see: a smaller image size is faster."
        )
    elif scale < 1 / _SHRUNK:
        yield (
            f"Images of about {_text(size)} pixels are reduced to {_text(image_size)}: what is "
            f"smaller than about {round(1 / scale)} pixels may be lost. A larger image size keeps "
            "more of it, and takes longer."
        )


def make_detector(config: PipelineConfig) -> Detector:
    """The detector with its settings.

    Raises:
        UserError: if the detector or a setting is unknown, or only the code may set it.
    """
    name, settings = str(config.training.detector), config.training.all_settings
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
    source = sources.get(data.source_name, data.location, **source_options(config))
    source.verify()
    return source


def source_options(config: PipelineConfig) -> dict[str, Any]:
    """Options of the source, including those that are knobs of their own."""
    options = dict(config.data.source_options)
    if "max_pixels" in options:
        raise UserError(
            "max_pixels is not an option of a source, but one of the run.", "max_pixels"
        )
    if config.data.source_name == "images":
        options["max_pixels"] = config.data.max_pixels
    return options


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
