"""The scores of images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from components.serving.rows import cannot_flag, exceeds, rows
from models.errors import UserError
from models.score_names import ANOMALY_MAP, ANOMALY_SCORE

if TYPE_CHECKING:
    import pandas


class Scores(Mapping[str, np.ndarray]):
    """Scores by name, such as `anomaly_score` or `pp`: arrays with a value for each image.

    Args:
        names: paths of the images, or their numbers.
        outputs: name of the score -> array whose first axis has a value for each of `names`.
        unreadable: path of each image that could not be read -> reason.
        left_out: sentences on files that were ignored.
    """

    def __init__(
        self,
        names: Sequence[str],
        outputs: Mapping[str, np.ndarray],
        unreadable: Mapping[str, str],
        left_out: Sequence[str],
    ):
        self.names = list(names)
        self.unreadable = dict(unreadable)
        self.left_out = list(left_out)
        self._outputs = dict(outputs)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        return f"<Scores of {len(self.names)} images: {', '.join(self)}>"

    @property
    def anomaly_map(self) -> np.ndarray:
        """How unusual each part of the images is: float32, shape (N, h, w).

        Raises:
            AttributeError: if the detector has no map, or it was not asked for.
        """
        if ANOMALY_MAP not in self:
            raise AttributeError(
                "There is no anomaly_map: score with pictures=True, by a detector that has one, "
                "such as patch_knn or capsnet on a backbone."
            )
        return self[ANOMALY_MAP]

    def flagged(self, alpha: float = 0.05) -> np.ndarray:
        """Tells which images are anomalous, which is `anomaly_score > 1 - alpha`.

        It warns if the detector was calibrated on too few images to flag any with this `alpha`.

        Args:
            alpha: share of normal images that may be flagged by mistake, in (0, 1).

        Returns:
            bool array, shape (N,).

        Raises:
            UserError: if `alpha` is not in (0, 1), or the detector is not calibrated.
        """
        check_alpha(alpha)
        if ANOMALY_SCORE not in self:
            raise UserError("The detector is not calibrated, so it has no anomaly_score.")
        if warning := cannot_flag(self._outputs, alpha):
            warnings.warn(warning, stacklevel=2)
        return exceeds(self[ANOMALY_SCORE], alpha)

    def to_frame(self, alpha: float = 0.05) -> pandas.DataFrame:
        """Makes a table with a row for each image and the columns of `capsad score --format csv`.

        Args:
            alpha: as for `flagged`.

        Raises:
            UserError: if `alpha` is not in (0, 1), or the detector is not calibrated.
        """
        import pandas

        check_alpha(alpha)
        return pandas.DataFrame(rows(self.names, self._outputs, alpha))


def check_alpha(alpha: float) -> None:
    """Raises a UserError if `alpha` is not between 0 and 1."""
    if not 0 < alpha < 1:
        raise UserError(f"alpha must be above 0 and below 1, not {alpha}.", "alpha")
