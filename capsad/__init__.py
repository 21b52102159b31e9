"""Image anomaly detection with capsule networks, for use from Python.

`fit` trains a detector on arrays, and `load` loads one that a run of the pipeline has pushed. Both
give a `FittedDetector`. `AnomalyDetector` is the same for scikit-learn. `scores` and `calibrate`
work on any Keras network, and `detectors` lists what can be trained.

Everything is imported only when it is used, because TensorFlow takes seconds to load.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsad.detector import FittedDetector, fit, load
    from capsad.estimator import AnomalyDetector
    from capsad.result import Scores
    from models import scores
    from models.calibration import calibrate
    from models.detectors import names as detectors
    from models.errors import UserError

__all__ = [
    "AnomalyDetector",
    "FittedDetector",
    "Scores",
    "UserError",
    "calibrate",
    "detectors",
    "fit",
    "load",
    "scores",
]

_HOMES = {
    "AnomalyDetector": "capsad.estimator:AnomalyDetector",
    "FittedDetector": "capsad.detector:FittedDetector",
    "Scores": "capsad.result:Scores",
    "UserError": "models.errors:UserError",
    "calibrate": "models.calibration:calibrate",
    "detectors": "models.detectors:names",
    "fit": "capsad.detector:fit",
    "load": "capsad.detector:load",
    "scores": "models.scores",
    "__version__": "importlib.metadata:version",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'capsad' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    value: Any = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    if name == "__version__":
        value = value("capsad")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
