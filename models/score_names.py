"""Names of scores, and their direction. This needs no Keras, which takes seconds to load.

Raw scores are normality scores, as in the paper: higher = more normal. `anomaly_score` is the
calibrated score for users, in [0, 1]: higher = more anomalous.
"""

import numpy as np

ANOMALY_SCORE = "anomaly_score"
LEAST_ALPHA = "least_alpha"
"""Of n calibration images `1 / (n + 1)`: no alpha up to this can flag an image."""
FLAGGED = "flagged"
"""The served model's own verdict, with the alpha that it was exported with."""
RECONSTRUCTION, ANOMALY_MAP = "reconstruction", "anomaly_map"
PICTURES = (RECONSTRUCTION, ANOMALY_MAP)
"""Outputs with a value for each pixel or patch."""


def is_normality_score(name: str) -> bool:
    """Tells whether higher means more normal, as for every score except `anomaly_score`."""
    return name != ANOMALY_SCORE


def anomalousness(name: str, values: np.ndarray) -> np.ndarray:
    """Returns the values of score `name`, shape (N,), signed so that higher = more anomalous."""
    return -np.asarray(values) if is_normality_score(name) else np.asarray(values)
