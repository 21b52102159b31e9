"""The hold-out protocol: the four splits, which classes are anomalies, and the label numbers."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import UserError
from models.files import write_whole

SPLITS = ("train", "eval", "calibration", "test")
TRAIN, EVAL, CALIBRATION, TEST = range(len(SPLITS))
UNUSED = -1
ANOMALY_LABEL = -1


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, and which of them are held out as anomalies."""

    names: tuple[str, ...]
    """Names of all classes, in the order of their indices in the data set."""
    anomaly: tuple[int, ...]
    """Indices of the anomalous classes."""

    @property
    def normal_names(self) -> tuple[str, ...]:
        """Names of the normal classes, in the order of their labels."""
        return tuple(name for i, name in enumerate(self.names) if i not in self.anomaly)

    @property
    def anomaly_names(self) -> tuple[str, ...]:
        """Names of the anomalous classes."""
        return tuple(self.names[i] for i in self.anomaly)

    def labels(self, classes: np.ndarray) -> np.ndarray:
        """What is trained on and tested against.

        Args:
            classes: int array, shape (N,): indices of classes in the data set.

        Returns:
            int64 array, shape (N,): index among the normal classes; -1 for an anomaly.
        """
        label_of = np.full(len(self.names), ANOMALY_LABEL)
        normal = np.setdiff1d(np.arange(len(self.names)), self.anomaly)
        label_of[normal] = np.arange(len(normal))
        return label_of[classes]


@dataclass(frozen=True)
class Assignment:
    """Class and split of every image of a data set."""

    labels: dict[str, np.ndarray]
    """Part -> class indices, int64, shape (N,)."""
    splits: dict[str, np.ndarray]
    """Part -> index into `SPLITS` or `UNUSED`, int8, shape (N,)."""

    def save(self, folder: str) -> str:
        """Writes it into `folder`, under a name that follows from the content; gives the path."""
        arrays = {
            f"{kind}_{part}": array
            for kind, parts in vars(self).items()
            for part, array in parts.items()
        }
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values()))
        path = Path(folder, f"{digest.hexdigest()[:16]}.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getvalue())
        return str(path)

    @classmethod
    def load(cls, path: str) -> "Assignment":
        """Reads what `save` has written."""
        found: dict[str, dict[str, np.ndarray]] = {"labels": {}, "splits": {}}
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                kind, part = name.split("_", 1)
                found[kind][part] = arrays[name]
        return cls(**found)


def resolve_anomaly(anomaly: Sequence[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the anomalous classes.

    Args:
        anomaly: names of classes, or lists of names with commas between them. Where no class is
            named like a number, an index of a class may stand for its name.
        class_names: names of all classes.

    Raises:
        UserError: if one is unknown, none is given, or fewer than two normal classes are left.
    """
    names = list(class_names)
    listed = f"the classes are {', '.join(names)}"
    indices = set()
    for given in map(str, anomaly):
        # A class whose name holds a comma goes before a list of classes.
        parts = [given] if given in names else [part.strip() for part in given.split(",")]
        indices |= {_index_of(part, names) for part in parts if part}
    if not indices:
        raise UserError(f"No anomaly class is given: {listed}. Name at least one.", "anomaly")
    normal = len(names) - len(indices)
    if normal < 2:
        raise UserError(
            f"Anomaly {', '.join(map(str, anomaly))} leaves {normal} normal "
            f"class{'es' * (normal != 1)}; at least two are needed: {listed}.",
            "anomaly",
        )
    return tuple(sorted(indices))


def _index_of(name: str, names: list[str]) -> int:
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(names):
        if not any(other.isdecimal() for other in names):
            return int(name)
        raise UserError(
            f"The anomaly class '{name}' could mean a class of that name, which does not exist, or "
            f"class number {int(name)}, which is '{names[int(name)]}'. Give the class by its exact "
            f"name: {', '.join(names)}.",
            "anomaly",
        )
    raise UserError(
        f"Unknown anomaly class '{name}': the classes are {', '.join(names)}.", "anomaly"
    )


def hold_out(
    labels: dict[str, np.ndarray],
    class_names: Sequence[str],
    anomaly: Sequence[int],
    *,
    seed: int,
    eval_fraction: float,
    calibration_fraction: float,
    test_fraction: float,
    limit_per_class: int | None = None,
    balanced: bool = True,
) -> dict[str, np.ndarray]:
    """Assigns every image to a split.

    `eval` and `calibration` are drawn, class by class, from the normal images of the training
    part; the rest is `train`. `test` is the test part. A data set without a test part gives
    `test_fraction` of each normal class and all the anomalies. A balanced `test` has equally many
    anomalies and normal images; those that are too many are dropped at random.

    Args:
        labels: part (`train` and perhaps `test`) -> class indices, int, shape (N,).
        class_names: names of all classes.
        anomaly: indices of the anomalous classes.
        seed: seed of every draw.
        eval_fraction: share of the training part's normal images, in (0, 1), for `eval`.
        calibration_fraction: share of the same images for `calibration`.
        test_fraction: share of the same images for `test`, in data sets without a test part.
        limit_per_class: largest number of images that are used of each class in each part;
            `None`: all are used.
        balanced: whether `test` holds equally many normal images and anomalies, as in the paper;
            otherwise it holds all its images.

    Returns:
        Part -> index into `SPLITS` or `UNUSED`, int8, shape (N,).

    Raises:
        UserError: if a class has too few images for its splits.
    """
    generator = np.random.default_rng(seed)
    assignment = {part: np.full(len(values), UNUSED, "int8") for part, values in labels.items()}
    fractions = {EVAL: eval_fraction, CALIBRATION: calibration_fraction}
    if "test" not in labels:
        fractions = {TEST: test_fraction} | fractions

    for index, name in enumerate(class_names):
        for part, values in labels.items():
            (images,) = np.nonzero(values == index)
            images = generator.permutation(images)[:limit_per_class]
            if index in anomaly:
                split = TEST if part == "test" or "test" not in labels else UNUSED
                assignment[part][images] = split
            elif part == "test":
                assignment[part][images] = TEST
            else:
                counts = {
                    split: max(1, round(len(images) * share)) for split, share in fractions.items()
                }
                if sum(counts.values()) >= len(images):
                    raise UserError(
                        f"Class '{name}' has {len(images)} images to train on, too few for the "
                        f"splits {', '.join(SPLITS)}: at least {sum(counts.values()) + 1} are "
                        "needed. Add images or raise the limit of images in each class.",
                        "limit_per_class",
                    )
                start = 0
                for split, count in counts.items():
                    assignment[part][images[start : start + count]] = split
                    start += count
                assignment[part][images[start:]] = TRAIN

    _finish_test(labels, assignment, anomaly, class_names, generator, balanced)
    return assignment


def _finish_test(labels, assignment, anomaly, class_names, generator, balanced):
    """Checks that `test` has both kinds of images; a balanced one keeps equally many of both."""
    part = "test" if "test" in labels else "train"
    is_test = assignment[part] == TEST
    is_anomaly = np.isin(labels[part], anomaly)
    groups = [np.flatnonzero(is_test & is_anomaly), np.flatnonzero(is_test & ~is_anomaly)]
    kept = min(map(len, groups))
    if not kept:
        which = ", ".join(class_names[index] for index in anomaly)
        kind = "normal" if len(groups[0]) else f"anomalous ({which})"
        raise UserError(f"There are no {kind} images to test on in the part '{part}'.")
    for group in groups if balanced else ():
        assignment[part][generator.permutation(group)[kept:]] = UNUSED
