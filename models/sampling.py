"""Draws of training images in which no class is lost."""

import numpy as np

BALANCE = 20
"""Largest ratio of the numbers of images of two classes in training."""
_LEAST = 50


def balance(labels: np.ndarray) -> np.ndarray:
    """Repeats the images of rare classes, up to 1 in `BALANCE` of the largest class.

    Args:
        labels: int array, shape (N,), values 0 to C - 1, every class present.

    Returns:
        int array, shape (M,), M >= N: places of images. It is 0 to N - 1 in order if no class is so
        rare.
    """
    counts = np.bincount(labels)
    wanted = counts.max() // BALANCE
    places = [np.arange(len(labels))]
    for label in np.flatnonzero(counts < wanted):
        (own,) = np.nonzero(labels == label)
        places.append(np.resize(own, wanted - len(own)))
    return np.concatenate(places)


def stratified(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draws images without replacement, of each class its share, but at least 50 or all it has.

    Args:
        labels: int array, shape (N,), values 0 to C - 1.
        count: number of images; a few more are drawn if there are rare classes.
        generator: source of the draw.

    Returns:
        int array of places, in random order; all places if N <= count.
    """
    order = generator.permutation(len(labels))
    if len(labels) <= count:
        return order
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        share = round(count * len(own) / len(labels))
        chosen[own[: max(share, _LEAST)]] = True
    return order[chosen[order]]
