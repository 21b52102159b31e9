"""Repeats and draws training images so that rare classes are not lost."""

import numpy as np

BALANCE = 20
"""Largest ratio of the numbers of images of two classes in training."""
_LEAST = 50


def balance(labels: np.ndarray) -> np.ndarray:
    """Repeats the images of rare classes until each has 1 / `BALANCE` of the largest class.

    Args:
        labels: int array, shape (N,), values 0 to C - 1. Every class is present.

    Returns:
        Indices of images, int array, shape (M,), M >= N. If no class is rare, they are 0 to N - 1.
    """
    counts = np.bincount(labels)
    wanted = counts.max() // BALANCE
    places = [np.arange(len(labels))]
    for label in np.flatnonzero(counts < wanted):
        (own,) = np.nonzero(labels == label)
        places.append(np.resize(own, wanted - len(own)))
    return np.concatenate(places)


def stratified(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draws images without replacement, in proportion to the sizes of the classes.

    At least 50 images of each class are drawn, or all if the class has fewer.

    Args:
        labels: int array, shape (N,), values 0 to C - 1.
        count: number of images. If there are rare classes, a few more are drawn.
        generator: generator of the random choice.

    Returns:
        Indices of the images in random order, int array. If N <= count, these are all indices.
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
