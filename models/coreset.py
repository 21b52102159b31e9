"""A small set of points that leaves no other point far away."""

import numpy as np


def coreset(points: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Chooses points greedily: each next one is the farthest from all that are chosen (k-centre).

    Args:
        points: float array, shape (N, D).
        size: number of points to choose.
        generator: source of the first point.

    Returns:
        int array of min(size, N) places, in the order in which they were chosen.

    Reference:
        Sener, Savarese 2018, Active learning for convolutional neural networks: a core-set
        approach, arXiv 1708.00489; Roth et al. 2022, arXiv 2106.08265, algorithm 1.
    """
    points = np.ascontiguousarray(points, "float32")
    squares = np.square(points).sum(axis=1)
    chosen = np.empty(min(size, len(points)), int)
    chosen[0] = generator.integers(len(points))
    # N: squared distance to the nearest chosen point
    distances = np.full(len(points), np.inf, "float32")
    for place in range(1, len(chosen)):
        latest = chosen[place - 1]
        distances = np.minimum(distances, squares + squares[latest] - 2 * (points @ points[latest]))
        distances[latest] = -np.inf  # Rounding must not choose it again.
        chosen[place] = distances.argmax()
    return chosen
