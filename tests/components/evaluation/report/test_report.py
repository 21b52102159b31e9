import csv
import dataclasses
import re

import numpy as np
import pytest

from components.evaluation.report import page, tables
from components.evaluation.verdict import Check, Verdict
from models import metrics

BLESSED = Verdict(True, "Blessed: so & so", "It is good.", [Check("auROC > 0.5", "0.7", True)])


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    count = 120
    labels = np.r_[np.arange(60) % 2, np.full(60, -1)]
    names = np.array(["<b>ball</b>", "cube & $x_1$", "odd"])
    anomaly_score = np.clip(generator.random(count) * 0.8 + 0.25 * (labels < 0), 0, 0.999)
    scores = {"pp": 1 - anomaly_score, "anomaly_score": anomaly_score}
    auroc = {"pp": metrics.auroc(anomaly_score, labels < 0)}
    auroc["anomaly_score"] = auroc["pp"]
    return page.ReportData(
        title="capsad_test",
        detector="capsnet",
        source="made up",
        normal_classes=tuple(names[:2]),
        anomaly_classes=("odd",),
        images=generator.integers(0, 256, (count, 8, 8, 1), dtype="uint8"),
        anomaly_maps=None,
        nearest_images=None,
        pixels=None,
        reconstructions=generator.random((count, 8, 8, 1)),
        labels=labels,
        class_text=names[labels],
        predicted=np.where(labels < 0, 1, labels),
        ids=np.array([f"test-{i:08d}" for i in range(count)]),
        scores=scores,
        auroc={"overall": auroc, names[0]: auroc, names[1]: {}},
        measures={
            name: {
                "auroc": auroc[name],
                "auroc_low": 0.61,
                "auroc_high": 0.83,
                "aupr": 0.5,
                "fpr_at_95_tpr": 0.25,
            }
            for name in scores
        },
        accuracy=0.97,
        calibration_size=50,
        split_sizes={"train": {names[0]: 100}, "test": {names[0]: 30, "odd": 60}},
        history={"loss": [1.0, 0.5], "val_loss": [1.1, 0.6]},
        verdict=BLESSED,
        data_notes=["3 files ignored, because hidden: <x>"],
        config={"data": {"source": "made up"}, "seed": 0},
        versions={"Python": "3"},
        seed=0,
        seconds={"Training": 12.0},
    )


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


def test_writing_again_replaces(data, tmp_path):
    page.write(str(tmp_path), data)
    page.write(str(tmp_path), dataclasses.replace(data, title="second"))
    assert "second" in (tmp_path / "report.html").read_text()


def test_without_reconstructions_and_with_a_calibration_too_small(data, tmp_path):
    page.write(str(tmp_path), dataclasses.replace(data, reconstructions=None, calibration_size=3))
    html = (tmp_path / "report.html").read_text()
    assert "no α of 25.00 % or less" in html


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
