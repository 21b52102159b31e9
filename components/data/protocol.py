"""The hold-out protocol: the four splits, which classes are anomalies, and the label numbers."""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.data.index import HeldOut, Index, Part
from models.errors import UserError

SPLITS = ("train", "eval", "calibration", "test")
TRAIN, EVAL, CALIBRATION, TEST = range(len(SPLITS))
UNUSED = -1
ANOMALY_LABEL = -1
LEAST_IMAGES = 2
"""Smallest number of images that a normal class needs in `train`."""
_LEAST_TO_SPLIT = 10


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


def resolve_anomaly(anomaly: Sequence[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the anomalous classes.

    Args:
        anomaly: names of classes, or lists of names with commas between them. Where no class is
            named like a number, an index of a class may stand for its name.
        class_names: names of all classes.

    Raises:
        UserError: if one is unknown, none is given, or no normal class is left.
    """
    names = list(class_names)
    listed = f"the classes are {', '.join(names)}"
    indices = set()
    for given in map(str, anomaly):
        # A class whose name holds a comma goes before a list of classes.
        parts = [given] if _same(given, names) else [part.strip() for part in given.split(",")]
        indices |= {_index_of(part, names) for part in parts if part}
    if not indices:
        raise UserError(
            f"No anomaly class is given: {listed}. Name at least one, or put anomalies into a test "
            "folder alone, such as FOLDER/train/good/1.png, FOLDER/test/good/2.png and "
            "FOLDER/test/scratched/3.png.",
            "anomaly",
        )
    if len(indices) == len(names):
        raise UserError(
            f"The anomaly {', '.join(map(str, anomaly))} leaves no normal class: {listed}.",
            "anomaly",
        )
    return tuple(sorted(indices))


def only_tested(index: Index) -> tuple[str, ...]:
    """Names of the classes that only the test part has: they can only be anomalies."""
    if "test" not in index.parts:
        return ()
    labels = np.setdiff1d(index.parts["test"].labels, index.parts["train"].labels)
    return tuple(index.class_names[label] for label in labels)


def _same(name: str, names: list[str]) -> list[int]:
    """Places of a name, first exactly, then by its letters however their accents are stored."""
    if name in names:
        return [names.index(name)]
    composed = unicodedata.normalize("NFC", name)
    return [i for i, other in enumerate(names) if unicodedata.normalize("NFC", other) == composed]


def _index_of(name: str, names: list[str]) -> int:
    if found := _same(name, names):
        return found[0]
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
    index: Index,
    anomaly: Sequence[int],
    *,
    split_seed: int,
    eval_fraction: float,
    calibration_fraction: float,
    test_fraction: float,
    limit_per_class: int | None = None,
    balanced: bool = True,
) -> HeldOut:
    """Assigns every image to a split.

    A hash of its content and of `split_seed` gives each image a place in [0, 1), and the shares
    are intervals of it. So equal images share a split, and images that are added move none of the
    others. `eval` and `calibration` are shares of the normal images of the training part; the rest
    is `train`. `test` is the test part; a data set without one gives `test_fraction` of the normal
    images and all the anomalies. Where a share is so small that it holds no image, it takes the
    nearest one of the largest class. A test image whose content is trained on is left out. A
    balanced `test` has equally many anomalies and normal images; those that are too many are left
    out by their hash.

    Args:
        index: the images.
        anomaly: indices of the anomalous classes.
        split_seed: seed of the hash.
        eval_fraction: share of the training part's normal images, in (0, 1), for `eval`.
        calibration_fraction: share of the same images for `calibration`.
        test_fraction: share of the same images for `test`, in data sets without a test part.
        limit_per_class: largest number of images that are used of each class in each part;
            `None`: all are used.
        balanced: whether `test` holds equally many normal images and anomalies, as in the paper;
            otherwise it holds all its images.

    Raises:
        UserError: if a class has too few images, or one kind of images is missing in `test`.
    """
    shares = {EVAL: eval_fraction, CALIBRATION: calibration_fraction}
    if "test" not in index.parts:
        shares = {TEST: test_fraction} | shares
    if sum(shares.values()) >= 1:
        raise UserError(
            f"The shares of {', '.join(SPLITS[split] for split in shares)} leave nothing to train "
            "on: they must sum up to less than 1.",
            *(f"{SPLITS[split]}_fraction" for split in shares),
        )
    splits = {
        name: _assign(name, part, anomaly, shares, split_seed, limit_per_class)
        for name, part in index.parts.items()
    }
    _check_classes(index, splits["train"], anomaly, split_seed, list(shares))
    repeated = _leave_out_repeated(index, splits)
    _finish_test(index, splits, anomaly, split_seed, balanced)
    return HeldOut(index, splits, repeated)


def split_normal(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], split_seed: int
) -> np.ndarray:
    """Assigns normal images in memory to `train`, `eval` and `calibration`.

    The different images of each class are ordered by a hash of their content and of `split_seed`:
    the first fifth is for `calibration`, the next tenth for `eval`. So shares are exact in each
    class, which matters where images are few, and equal images of a class share a split.

    Args:
        images: array, shape (N, ...).
        labels: int array, shape (N,), indices of `class_names`.
        class_names: names of the classes.
        split_seed: seed of the hash.

    Returns:
        Indices into `SPLITS`, int array, shape (N,).

    Raises:
        UserError: if a class has less than 10 different images.
    """
    hashes = _hashes([image.tobytes() for image in images], split_seed, "split")
    splits = np.full(len(images), TRAIN)
    for label, name in enumerate(class_names):
        (own,) = np.nonzero(labels == label)
        different, ranks = np.unique(hashes[own], return_inverse=True)
        if len(different) < _LEAST_TO_SPLIT:
            raise UserError(
                f"Class '{name}' has {len(different)} different images, and at least "
                f"{_LEAST_TO_SPLIT} are needed: give more images, or leave the class out."
            )
        places = (ranks + 0.5) / len(different)
        splits[own[places < 0.3]] = EVAL
        splits[own[places < 0.2]] = CALIBRATION
    return splits


def _assign(
    name: str,
    part: Part,
    anomaly: Sequence[int],
    shares: dict[int, float],
    split_seed: int,
    limit: int | None,
) -> np.ndarray:
    """Splits of a part's images by their hashes, int8 (N,)."""
    splits = np.full(len(part.labels), TEST if name == "test" else TRAIN, "int8")
    is_anomaly = np.isin(part.labels, anomaly)
    if name != "test":
        splits[is_anomaly] = TEST if TEST in shares else UNUSED
        places, start = _hashes(part.keys(), split_seed, "split"), 0.0
        for split, share in shares.items():
            splits[~is_anomaly & (start <= places) & (places < start + share)] = split
            start += share
    if limit is not None:
        order = _hashes(part.keys(), split_seed, "limit")
        for label in np.unique(part.labels):
            (own,) = np.nonzero(part.labels == label)
            splits[own[np.argsort(order[own], kind="stable")[limit:]]] = UNUSED
    return splits


def _check_classes(
    index: Index, splits: np.ndarray, anomaly: Sequence[int], split_seed: int, needed: list[int]
) -> None:
    """Fills splits without images; refuses classes with too few images to train on."""
    part = index.parts["train"]
    normal = np.setdiff1d(np.arange(len(index.class_names)), anomaly)
    for split in needed:
        if (splits[np.isin(part.labels, normal)] == split).any():
            continue
        counts = np.bincount(part.labels[splits == TRAIN], minlength=len(index.class_names))
        largest = normal[counts[normal].argmax()]
        candidates = np.flatnonzero((splits == TRAIN) & (part.labels == largest))
        if len(candidates):
            keys = part.keys()
            places = _hashes(keys, split_seed, "split")
            nearest = candidates[places[candidates].argmin()]
            splits[[place for place in candidates if keys[place] == keys[nearest]]] = split
    counts = np.bincount(part.labels[splits == TRAIN], minlength=len(index.class_names))
    for label in normal:
        if counts[label] < LEAST_IMAGES:
            total = int((part.labels == label).sum())
            raise UserError(
                f"Class '{index.class_names[label]}' has {total} images in the training part, and "
                f"{counts[label]} of them are left to train on; a class needs at least "
                f"{LEAST_IMAGES}. Add images, or leave the class out."
            )


def _leave_out_repeated(index: Index, splits: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Leaves test images out whose content is trained, watched or calibrated on; lists both."""
    used: dict[bytes, str] = {}
    for name, part in index.parts.items():
        for place in np.flatnonzero(np.isin(splits[name], (TRAIN, EVAL, CALIBRATION))):
            used.setdefault(part.digests[place].tobytes(), index.image_name(name, place))
    repeated = []
    for name, part in index.parts.items():
        for place in np.flatnonzero(splits[name] == TEST):
            other = used.get(part.digests[place].tobytes())
            if other is not None:
                splits[name][place] = UNUSED
                repeated.append((index.image_name(name, place), other))
    return repeated


def _finish_test(
    index: Index,
    splits: dict[str, np.ndarray],
    anomaly: Sequence[int],
    split_seed: int,
    balanced: bool,
) -> None:
    """Checks that `test` has both kinds of images; a balanced one keeps equally many of both."""
    name = "test" if "test" in index.parts else "train"
    part = index.parts[name]
    is_test = splits[name] == TEST
    is_anomaly = np.isin(part.labels, anomaly)
    groups = [np.flatnonzero(is_test & is_anomaly), np.flatnonzero(is_test & ~is_anomaly)]
    kept = min(map(len, groups))
    if not kept:
        which = ", ".join(index.class_names[label] for label in anomaly)
        kind = "normal" if len(groups[0]) else f"anomalous ({which})"
        raise UserError(
            f"There are no {kind} images to test on in the part '{name}': add some to its folder."
        )
    if balanced:
        order = _hashes(part.keys(), split_seed, "balance")
        for group in groups:
            splits[name][group[np.argsort(order[group], kind="stable")[kept:]]] = UNUSED


def _hashes(keys: Sequence[bytes], split_seed: int, purpose: str) -> np.ndarray:
    """A number in [0, 1) for each key, float64 (N,), independent between seeds and purposes."""
    start = hashlib.sha256(f"{purpose} {split_seed} ".encode())
    numbers = []
    for key in keys:
        digest = start.copy()
        digest.update(key)
        numbers.append(int.from_bytes(digest.digest()[:8], "big"))
    return np.array(numbers, "float64") / 2.0**64
