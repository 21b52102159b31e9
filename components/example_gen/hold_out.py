"""The hold-out protocol: which image goes into which split."""

from collections.abc import Sequence

import numpy as np

from models.errors import UserError

SPLITS = ("train", "eval", "calibration", "test")
TRAIN, EVAL, CALIBRATION, TEST = range(len(SPLITS))
UNUSED = -1


def resolve_anomaly(anomaly: Sequence[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the anomalous classes, given by name or, where no class is so named, by index.

    Raises:
        UserError: if one is unknown, none is given, or fewer than two normal classes are left.
    """
    listed = f"the classes are {', '.join(class_names)}"
    indices = set()
    for name in map(str, anomaly):
        if name in class_names:
            indices.add(class_names.index(name))
        elif name.isdecimal() and int(name) < len(class_names):
            indices.add(int(name))
        else:
            raise UserError(f"Unknown anomaly class '{name}': {listed}.")
    if not indices:
        raise UserError(f"The list of anomaly classes (--anomaly) is empty: {listed}.")
    normal = len(class_names) - len(indices)
    if normal < 2:
        raise UserError(
            f"Anomaly {', '.join(map(str, anomaly))} leaves {normal} normal "
            f"class{'es' * (normal != 1)}; at least two are needed: {listed}."
        )
    return tuple(sorted(indices))


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

    `eval` and `calibration` are cut, class by class, from the normal images of the training part;
    the rest is `train`. `test` is cut from the test part or, where the data set has none, is
    `test_fraction` of each normal class and all the anomalies. If it is balanced, anomalies and
    normal images are equally many in it, those too many dropped at random.

    Args:
        labels: part (`train` and perhaps `test`) -> class indices, int, shape (N,).
        class_names: names of all classes.
        anomaly: indices of the anomalous classes.
        seed: of every draw.
        eval_fraction: share of the training part's normal images, in (0, 1).
        calibration_fraction: likewise.
        test_fraction: likewise, for data sets without a test part.
        limit_per_class: images kept of each class in each part; `None`: all.
        balanced: as the paper tests; otherwise `test` keeps all its images.

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
                        "needed. Add images or raise --limit-per-class."
                    )
                start = 0
                for split, count in counts.items():
                    assignment[part][images[start : start + count]] = split
                    start += count
                assignment[part][images[start:]] = TRAIN

    _finish_test(labels, assignment, anomaly, class_names, generator, balanced)
    return assignment


def _finish_test(labels, assignment, anomaly, class_names, generator, balanced):
    """Checks that `test` has both kinds and, if balanced, leaves equally many, drawn at random."""
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
