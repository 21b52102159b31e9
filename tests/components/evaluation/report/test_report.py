import csv
import dataclasses
import re

import numpy as np
import pytest

from components.evaluation.report import compare, figures, page, tables
from components.evaluation.verdict import Check, Verdict
from models.errors import UserError
from tests.components.evaluation.report.made_up import made_up


@pytest.fixture
def data():
    return made_up()


def test_the_page_is_self_contained_and_escaped(data, tmp_path):
    page.write(str(tmp_path), data)
    html = (tmp_path / "report.html").read_text()
    assert "<b>ball</b>" not in html
    assert "&lt;b&gt;ball&lt;/b&gt;" in html
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in re.sub(r"data:[^\"]*", "", html)
    assert "Blessed: so &amp; so" in html
    assert "auROC &gt; 0.5" in html and "It is good." in html
    assert "0.6100 to 0.8300" in html
    assert "tested on 60 anomalies and 60 normal images" in html
    assert "3 files ignored, because hidden: &lt;x&gt;" in html
    assert f"{data.auroc['overall']['anomaly_score']:.4f}" in html


def test_a_refused_model_says_so(data, tmp_path):
    refused = Verdict(False, "Not blessed", "It is bad.", [Check("auROC > 0.5", "0.4", False)])
    page.write(str(tmp_path), dataclasses.replace(data, verdict=refused))
    html = (tmp_path / "report.html").read_text()
    assert "Not blessed" in html and "failed" in html and 'class="verdict"' in html


def test_same_data_same_bytes_and_nothing_half_written(data, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        page.write(str(tmp_path / name), data)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert {"report.html", "roc.png", "thresholds.csv"} <= {path.name for path in files}
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert not list(tmp_path.rglob(".incomplete"))


def test_a_grey_mush_is_called_one(data, tmp_path):
    page.write(str(tmp_path), data)
    assert "grey mush" not in (tmp_path / "report.html").read_text()
    mean = np.broadcast_to(data.reconstructions.mean(axis=0), data.reconstructions.shape)
    blurred = mean + 0.01 * data.reconstructions
    page.write(str(tmp_path), dataclasses.replace(data, reconstructions=blurred))
    html = (tmp_path / "report.html").read_text()
    assert "The reconstructions are a grey mush." in html
    assert "only 1.0 % as much as the images" in html


def test_captions_are_no_wider_than_their_images():
    images = np.zeros((2, 8, 8, 1), "uint8")
    drawn = figures.stacked_figure([images], ["Donaudampfschifffahrtsgesellschaft\n0.5", "a b\n1"])
    drawn.canvas.draw()
    first, second = (axes.xaxis.label.get_window_extent() for axes in drawn.axes)
    assert first.x1 < second.x0
    assert first.x0 > 0


def test_writing_again_replaces(data, tmp_path):
    page.write(str(tmp_path), data)
    page.write(str(tmp_path), dataclasses.replace(data, title="second"))
    assert "second" in (tmp_path / "report.html").read_text()


def test_the_report_says_what_is_calibrated(data, tmp_path):
    page.write(str(tmp_path), data)
    html = (tmp_path / "report.html").read_text()
    assert "anomaly_score calibrates pp." in html
    assert "calibrated_score=" not in html, "There is no other score."
    more = {
        "scores": {**data.scores, "re": data.scores["pp"]},
        "measures": {**data.measures, "re": data.measures["pp"]},
        "auroc": {kind: {**areas, "re": 0.7} for kind, areas in data.auroc.items()},
    }
    page.write(str(tmp_path), dataclasses.replace(data, **more, calibrated_score="re"))
    html = (tmp_path / "report.html").read_text()
    assert "anomaly_score calibrates re." in html and "calibrated_score=NAME" in html


def test_without_reconstructions_and_with_a_calibration_too_small(data, tmp_path):
    page.write(str(tmp_path), dataclasses.replace(data, reconstructions=None, calibration_size=3))
    html = (tmp_path / "report.html").read_text()
    assert "no α of 25.00 % or less" in html


def test_with_one_normal_class_nothing_is_said_of_the_right_class(data, tmp_path):
    name = data.normal_classes[0]
    one = dataclasses.replace(
        data,
        normal_classes=(name,),
        labels=np.minimum(data.labels, 0),
        predicted=np.zeros_like(data.predicted),
    )
    page.write(str(tmp_path), one)
    html = (tmp_path / "report.html").read_text()
    assert "odd among one normal class</h1>" in html
    assert "right class" not in html and "taken for" not in html and "seen as" not in html


def test_the_table_of_images_has_every_score(data, tmp_path):
    page.write(str(tmp_path), data)
    with (tmp_path / "tables" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    assert float(rows[7]["pp"]) == pytest.approx(data.scores["pp"][7])
    assert rows[100]["is_anomaly"] == "1"


def test_thresholds_count_flags_and_leave_out_what_calibration_cannot_resolve():
    anomaly_score = np.array([0.5, 0.96, 0.97, 0.99, 0.2])
    is_anomaly = np.array([0, 0, 1, 1, 1], bool)
    rows = tables.thresholds(anomaly_score, is_anomaly, calibration_size=30)
    assert [row.alpha for row in rows] == [0.05, 0.1, 0.2]
    assert (rows[0].false_alarms.count, rows[0].false_alarms.total) == (1, 2)
    assert (rows[0].detections.count, rows[0].detections.total) == (2, 3)


def test_wilson_interval():
    low, high = tables.Rate(5, 100).interval
    assert (low, high) == (pytest.approx(0.0215, abs=1e-3), pytest.approx(0.1118, abs=1e-3))
    assert np.isnan(tables.Rate(0, 0).interval).all()


def test_class_tables():
    labels = np.array([0, 0, 1, -1, -1])
    predicted = np.array([0, 1, 1, 1, 1])
    flagged = np.array([0, 1, 0, 1, 0], bool)
    first, second = tables.normal_classes(
        ("a", "b"), labels, predicted, flagged, {"a": {"pp": 0.9}}, ["pp"]
    )
    assert (first.images, first.correct.value, first.false_alarms.value) == (2, 0.5, 0.5)
    assert first.auroc == {"pp": 0.9}
    assert np.isnan(second.auroc["pp"])
    (anomaly,) = tables.anomaly_classes(
        ("z",), ("a", "b"), np.array(list("aabzz")), labels, predicted, flagged
    )
    assert (anomaly.detections.value, anomaly.mistaken_for, anomaly.mistaken.value) == (0.5, "b", 1)


def test_first_of_each_takes_turns():
    text = np.array(list("aaabbc"))
    chosen = tables.first_of_each(text, np.array([1, 1, 1, 1, 1, 0], bool), 4)
    assert chosen.tolist() == [0, 1, 3, 4]
    assert tables.first_of_each(text, np.zeros(6, bool), 4).tolist() == []


def write(folder, data):
    folder.mkdir()
    page.write(str(folder), data)
    return compare.read(folder.name, folder)


def test_runs_are_compared(data, tmp_path):
    settings = {"data": {"source": "made up"}, "seed": 1, "new": "x"}
    runs = [
        write(tmp_path / "one", data),
        write(tmp_path / "two", dataclasses.replace(data, config=settings)),
    ]
    assert compare.notes(runs) == []
    assert compare.differing(runs) == {"seed": ["0", "1"], "new": ["–", "x"]}
    html = compare.html(runs)
    assert "<td>seed</td>" in html and "made up" not in html
    assert f"{data.auroc['overall']['pp']:.4f}" in html


def test_what_cannot_be_compared_is_told(data, tmp_path):
    others = ["another"] * 20 + data.digests[20:]
    runs = [
        write(tmp_path / "one", data),
        write(tmp_path / "two", dataclasses.replace(data, digests=others)),
        write(tmp_path / "three", dataclasses.replace(data, anomaly_classes=("even",))),
    ]
    images, anomalies = compare.notes(runs)
    assert "tested on different images: 100 of 120 and 120 are the same" in images
    assert "one has the anomaly odd, and three has even" in anomalies
    assert anomalies in compare.html(runs)


def test_the_same_images_are_told_by_their_content(data, tmp_path):
    one = write(tmp_path / "one", data)
    moved = np.array([f"test-{i:08d} another name" for i in range(1, 121)])
    assert compare.notes([one, write(tmp_path / "two", dataclasses.replace(data, ids=moved))]) == []

    table = tmp_path / "one" / "tables" / "images.csv"
    table.write_text(table.read_text().replace("digest", "what no version wrote"))
    earlier = compare.read("earlier", tmp_path / "one")
    (told,) = compare.notes([one, earlier])
    assert "one and earlier were tested on the same images cannot be told" in told
    assert told.endswith("made the report of earlier.")


@pytest.mark.parametrize("damage", ["gone", "cut", "earlier"])
def test_a_damaged_report_is_told(damage, data, tmp_path):
    write(tmp_path / "one", data)
    summary = tmp_path / "one" / "summary.json"
    if damage == "gone":
        summary.unlink()
    else:
        summary.write_text("{}" if damage == "earlier" else summary.read_text()[:40])
    with pytest.raises(UserError, match="damaged, or of an earlier version"):
        compare.read("one", tmp_path / "one")


def test_comparing_needs_no_tensorflow(fresh_python):
    code = "import sys, components.evaluation.report.compare; print('tensorflow' in sys.modules)"
    assert fresh_python(code, ours=True) == "False\n"
