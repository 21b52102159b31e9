"""Detectors: each has its own file, and all have the interface in `base`."""

import dataclasses
import difflib
import importlib
from typing import Any

from models.detectors.base import Detector
from models.errors import UserError

_MODULES = {
    "capsnet": "models.detectors.capsnet:CapsNetDetector",
    "efficient_capsnet": "models.detectors.efficient_capsnet:EfficientCapsNetDetector",
    "matrix_capsnet": "models.detectors.matrix_capsnet:MatrixCapsNetDetector",
    "cnn_softmax": "models.detectors.cnn_softmax:CnnSoftmaxDetector",
    "cnn_ocsvm": "models.detectors.cnn_ocsvm:CnnOcsvmDetector",
    "vae": "models.detectors.vae:VaeDetector",
    "dbn": "models.detectors.dbn:DbnDetector",
    "deep_svdd": "models.detectors.deep_svdd:DeepSvddDetector",
    "geom": "models.detectors.geom:GeomDetector",
    "patch_knn": "models.detectors.patch_knn:PatchKnnDetector",
}


def names() -> tuple[str, ...]:
    """Returns the names of all detectors."""
    return tuple(_MODULES)


def describe(name: str) -> type[Detector]:
    """Returns the class of detector `name`.

    Raises:
        UserError: if there is no detector of that name.
    """
    if name not in _MODULES:
        close = difflib.get_close_matches(name, _MODULES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"Unknown detector '{name}': there are {', '.join(_MODULES)}.{hint}")
    module, attribute = _MODULES[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def get(name: str, /, **settings: Any) -> Detector:
    """Creates detector `name`, with `settings` in place of its defaults.

    Raises:
        UserError: if the name or a setting is unknown.
    """
    detector = describe(name)
    known = {field.name for field in dataclasses.fields(detector)}
    unknown = sorted(set(settings) - known)
    if unknown:
        own = ", ".join(sorted(field.name for field in detector.settings()))
        raise UserError(f"Detector {name} has no setting '{unknown[0]}': there are {own}.")
    return detector(**settings)
