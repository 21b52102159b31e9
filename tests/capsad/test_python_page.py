import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.utils import Bunch

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()


@pytest.fixture
def workplace(pushed, toys, tmp_path, monkeypatch):
    """A folder with a run and images, in which there are few digits."""
    run = tmp_path / "runs" / "capsad_images-anomaly-broken"
    shutil.copytree(pushed.serving, run / "serving")
    (tmp_path / "more_images").mkdir()
    for number, image in enumerate(toys(4, 4, seed=1)[0]):
        Image.fromarray(image[..., 0]).save(tmp_path / "more_images" / f"{number}.png")
    (tmp_path / "more_images" / "damaged.png").write_bytes(b"no image")
    whole = sklearn.datasets.load_digits()
    few = Bunch(images=whole.images[:900], target=whole.target[:900])
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: few)
    monkeypatch.chdir(tmp_path)


def test_the_examples_do_what_the_page_says(workplace):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    data, five_lines, saving, folder, estimator, network = blocks
    # The lines that are not empty; the first example is only the data.
    assert len([line for line in five_lines.splitlines() if line]) <= 5
    # Fewer and smaller, because the test is not about the detector.
    five_lines = five_lines.replace("epochs=10", "epochs=4, batch_size=25, learning_rate=0.003")
    names = {}

    def run(code):
        exec(compile(code, "docs/python.md", "exec"), names)

    run(data)
    run(five_lines.replace("filters=64", "filters=16, primary_types=8, decoder_units=(64,)"))
    is_anomaly = names["new_labels"] == -1
    assert roc_auc_score(is_anomaly, names["scores"]["anomaly_score"]) > 0.8
    assert names["flagged"].shape == is_anomaly.shape
    assert names["flagged"][~is_anomaly].mean() < 0.2

    before = names["scores"]["conformity"]
    run(saving)
    after = names["detector"].score(names["new_images"])["conformity"]
    np.testing.assert_allclose(after, before, atol=1e-5)

    with pytest.warns(UserWarning, match="damaged.png"):
        run(folder)
    with open("scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"more_images/{number}.png" for number in range(4)]
    assert {"flagged", "anomaly_score", "conformity"} <= rows[0].keys()
    assert list(names["scores"].unreadable) == ["more_images/damaged.png"]

    run(estimator)
    assert names["areas"].shape == (3,) and names["areas"].min() > 0.6
    assert set(names["predicted"]) == {1, -1}

    run(network)
    assert roc_auc_score(is_anomaly, names["anomaly_score"]) > 0.6
    assert (names["anomaly_score"][~is_anomaly] > 0.9).mean() < 0.25


def test_every_score_of_the_table_is_there():
    import capsad

    listed = re.findall(r"^\| `capsad\.scores\.(\w+)`", PAGE, re.MULTILINE)
    assert len(listed) == 5
    for name in listed:
        assert "arXiv" in getattr(capsad.scores, name).__doc__


def test_lines_are_short():
    assert max(map(len, PAGE.splitlines())) <= 120
