"""Makes a row of results for each scored image, and writes the rows."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO

import numpy as np

from components.data.folder import printable
from models.errors import UserError
from models.files import spreadsheet_safe
from models.score_names import ANOMALY_SCORE, FLAGGED, LEAST_ALPHA

Row = dict[str, str | bool | float]

_SCORE, _CLASS = ANOMALY_SCORE, "most_similar_class"


def rows(paths: Sequence[str], outputs: dict[str, np.ndarray], alpha: float) -> Iterator[Row]:
    """Makes a row for each image.

    A row has `image`, `flagged`, `anomaly_score`, `most_similar_class`, the raw scores, and
    `least_alpha` if the model tells it.

    Args:
        paths: paths of the images.
        outputs: outputs of a client, see `components.serving.clients.base.Client`.
        alpha: share of normal images that may be flagged by mistake, in (0, 1).

    Raises:
        UserError: if the model is not calibrated or is none of ours, or a score is no number.
    """
    if not {_SCORE, _CLASS} <= outputs.keys() or outputs[_SCORE].dtype.kind != "f":
        raise UserError(
            f"The model has no outputs '{_SCORE}' and '{_CLASS}': give one that `capsad run` has "
            "pushed."
        )
    for path, score in zip(paths, outputs[_SCORE], strict=False):
        if not 0 <= score <= 1:  # This is also true of NaN.
            raise UserError(
                f"The model gave {score} as {_SCORE} of {path}, which is not between 0 and 1: "
                "give a model that `capsad run` has pushed."
            )
    # Texts come after numbers.
    raw = sorted(
        (
            name
            for name, values in outputs.items()
            if values.ndim == 1 and name not in (_SCORE, _CLASS, LEAST_ALPHA, FLAGGED)
        ),
        key=lambda name: (outputs[name].dtype.kind in "US", name),
    )
    flagged = exceeds(outputs[_SCORE], alpha)
    for i, path in enumerate(paths):
        yield {
            "image": printable(path),
            "flagged": bool(flagged[i]),
            _SCORE: _value(outputs[_SCORE][i]),
            _CLASS: str(outputs[_CLASS][i]),
            **{name: _value(outputs[name][i]) for name in raw},
            **{name: _value(outputs[name][i]) for name in (LEAST_ALPHA,) if name in outputs},
        }


def cannot_flag(outputs: dict[str, np.ndarray], alpha: float) -> str:
    """A sentence if the model can flag no image at all with `alpha`, else nothing."""
    if LEAST_ALPHA not in outputs or exceeds(1 - outputs[LEAST_ALPHA], alpha).any():
        return ""
    least = float(outputs[LEAST_ALPHA].max())
    return (
        f"No image can be flagged with alpha {alpha:g}: the model was calibrated on "
        f"{1 / least - 1:.0f} images, so alpha must be above {least:.3g}."
    )


def exceeds(anomaly_score: np.ndarray, alpha: float) -> np.ndarray:
    """Tells which images are flagged with `alpha`, in float32 as in the report: bool (N,)."""
    return anomaly_score > np.float32(1 - alpha)


def _write_csv(rows: Iterable[Row], file: IO[str]) -> None:
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: spreadsheet_safe(value) for name, value in row.items()})


def _write_json_lines(rows: Iterable[Row], file: IO[str]) -> None:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_table(rows: Iterable[Row], file: IO[str]) -> None:
    """Writes columns of fixed widths, so that each row can be written immediately.

    The path is the last column, because its width is not known.
    """
    header: list[str] | None = None
    for row in rows:
        # This is the same for all images.
        path, flagged, *values = (item for item in row.items() if item[0] != LEAST_ALPHA)
        if header is None:
            # A column of texts is wide.
            header = [f"{name:<30}" if isinstance(value, str) else name for name, value in values]
            file.write(_line(["flagged", *header, path[0]]) + "\n")
        cells = [f"{n:<30}" if isinstance(n, str) else f"{n:.4f}" for _, n in values]
        file.write(_line(["yes" if flagged[1] else "no", *cells, str(path[1])]) + "\n")


def _line(cells: Sequence[str]) -> str:
    flagged, score, similar, *raw, path = cells
    widths = "".join(f"  {cell:>10}" for cell in raw)
    return f"{flagged:<9}{score:>13}  {similar.strip():<18}{widths}  {path}"


def _value(value: np.float32 | np.str_) -> float | str:
    """Returns a text, or the shortest decimal number that stands for a float32."""
    return str(value) if isinstance(value, str) else float(str(value))


FORMATS: dict[str, Callable[[Iterable[Row], IO[str]], None]] = {
    "table": _write_table,
    "csv": _write_csv,
    "jsonl": _write_json_lines,
}
