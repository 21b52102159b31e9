"""The model of a run as MLflow's `python_function`, which `capsad run --mlflow` logs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from capsad.detector import FittedDetector, load

if TYPE_CHECKING:
    import pandas


class PyFunc:
    """What `mlflow.pyfunc.load_model` makes of the model.

    Args:
        detector: the detector.
    """

    def __init__(self, detector: FittedDetector):
        self.detector = detector

    def predict(
        self, model_input: Any, params: Mapping[str, Any] | None = None
    ) -> "pandas.DataFrame":
        """Scores images.

        Args:
            model_input: images as for `FittedDetector.score`, or a DataFrame whose first column has
                paths of files.
            params: `alpha`, 0.05 by default.

        Returns:
            A table with a row for each image, as `Scores.to_frame` makes it.
        """
        if hasattr(model_input, "iloc"):
            model_input = model_input.iloc[:, 0].tolist()
        return self.detector.score(model_input).to_frame((params or {}).get("alpha", 0.05))


def _load_pyfunc(path: str) -> PyFunc:
    """Loads the SavedModel in the folder `path`. MLflow calls this by its name."""
    return PyFunc(load(path))
