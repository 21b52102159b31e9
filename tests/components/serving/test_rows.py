import csv
import io
import json

import numpy as np
import pytest

from components.serving.rows import FORMATS, cannot_flag, rows
from models.errors import UserError

OUTPUTS = {
    "re": np.array([-1.25, -30.5, -2.1], "float32"),
    "anomaly_score": np.array([0.1, 0.95, 0.951], "float32"),
    "class_probabilities": np.ones((3, 2), "float32"),
    "most_similar_class": np.array(["bolt", "größe", "bolt"]),
    "pp": np.array([0.9, 0.1, 0.123456], "float32"),
    "reconstruction": np.ones((3, 4, 4, 1), "float32"),
}
PATHS = ["a.png", "b, c.png", "d.png"]


def written(name, paths=PATHS):
    file = io.StringIO()
    FORMATS[name](rows(paths, OUTPUTS, alpha=0.05), file)
    return file.getvalue()


def test_rows():
    first, second, third = rows(PATHS, OUTPUTS, alpha=0.05)
    assert list(first) == ["image", "flagged", "anomaly_score", "most_similar_class", "pp", "re"]
    assert first == {
        "image": "a.png",
        "flagged": False,
        "anomaly_score": 0.1,
        "most_similar_class": "bolt",
        "pp": 0.9,
        "re": -1.25,
    }
    # 0.95 as float32 does not exceed 1 - 0.05, as in the report.
    assert (second["flagged"], third["flagged"]) == (False, True)


def test_an_alpha_that_can_flag_nothing_is_told():
    calibrated = {**OUTPUTS, "least_alpha": np.full(3, 1 / 20, "float32")}
    row = next(rows(PATHS, calibrated, alpha=0.1))
    assert (list(row)[-1], row["least_alpha"]) == ("least_alpha", 0.05)
    table = io.StringIO()
    FORMATS["table"]([row], table)
    assert "least_alpha" not in table.getvalue()
    assert cannot_flag(calibrated, 0.0501) == ""
    for alpha in (0.05, 0.01):
        told = cannot_flag(calibrated, alpha)
        assert f"alpha {alpha:g}: " in told
        assert "calibrated on 19 images, so alpha must be above 0.05." in told
    assert cannot_flag(OUTPUTS, 0.001) == ""  # An older model does not tell.


@pytest.mark.parametrize(("alpha", "flagged"), [(0.01, 0), (0.05, 1), (0.5, 2), (0.95, 3)])
def test_alpha(alpha, flagged):
    assert sum(row["flagged"] for row in rows(PATHS, OUTPUTS, alpha)) == flagged


def test_csv_and_json_lines_hold_the_same():
    from_csv = list(csv.DictReader(io.StringIO(written("csv"))))
    from_json = [json.loads(line) for line in written("jsonl").splitlines()]
    assert len(from_csv) == len(from_json) == 3
    for one, other in zip(from_csv, from_json, strict=True):
        assert one == {name: str(value) for name, value in other.items()}
    assert from_csv[1]["image"] == "b, c.png"
    assert "größe" in written("jsonl")


def test_no_cell_of_a_csv_file_is_a_formula():
    paths = ["=1+1.png", "@x.png", "-2.png"]
    cells = [row["image"] for row in csv.DictReader(io.StringIO(written("csv", paths)))]
    assert cells == ["'=1+1.png", "'@x.png", "'-2.png"]
    assert [row["re"] for row in csv.DictReader(io.StringIO(written("csv", paths)))][0] == "-1.25"
    exact = [json.loads(line)["image"] for line in written("jsonl", paths).splitlines()]
    assert exact == paths


def test_the_table():
    lines = written("table").splitlines()
    assert lines[0].split() == [
        "flagged",
        "anomaly_score",
        "most_similar_class",
        "pp",
        "re",
        "image",
    ]
    assert lines[2].split(maxsplit=5) == ["no", "0.9500", "größe", "0.1000", "-30.5000", "b, c.png"]
    assert len({line.index(word) for line, word in zip(lines[1:], PATHS, strict=True)}) == 1


def test_a_name_that_is_no_text_can_be_written():
    (row,) = rows([b"\xff.png".decode(errors="surrogateescape")], OUTPUTS, alpha=0.05)
    assert row["image"] == "\\xff.png"


@pytest.mark.parametrize("missing", ["anomaly_score", "most_similar_class"])
def test_outputs_of_another_model(missing):
    outputs = {name: values for name, values in OUTPUTS.items() if name != missing}
    with pytest.raises(UserError, match="give one that `capsad run` has pushed"):
        list(rows(PATHS, outputs, alpha=0.05))
