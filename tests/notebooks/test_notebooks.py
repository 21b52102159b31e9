import os
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.conftest import lively_weights

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_they_are_committed_without_outputs(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


def execute(name, folder, monkeypatch):
    """What a notebook prints and shows."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    resources = {"metadata": {"path": folder}}
    nbclient.NotebookClient(notebook, timeout=500, resources=resources).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    shown = [output.data for output in outputs if "data" in output]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert not re.search("deprecat|error|traceback", printed, re.IGNORECASE)
    return printed, shown


@pytest.mark.slow
def test_a_newcomer_sees_statistics_curves_and_reconstructions_and_no_warning(
    tmp_path, monkeypatch
):
    printed, shown = execute("quickstart", tmp_path, monkeypatch)
    pages = "".join(data.get("text/html", "") for data in shown)
    assert "Warning" not in printed
    assert sum("image/png" in data for data in shown) == 5
    assert "facets-overview" in pages
    assert "No anomalies found." in pages
    auroc = {name: float(value) for name, value in re.findall(r"auROC of (\w+) +([\d.]+)", printed)}
    assert auroc.keys() == {"conformity", "pp", "re", "anomaly_score"}
    assert auroc["anomaly_score"] > 0.75
    assert "blessed: True" in printed


@pytest.mark.slow
def test_photographs_are_flagged_and_shown_with_heat_maps(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSAD_WEIGHTS", lively_weights())
    monkeypatch.setenv("CAPSAD_MIN_AUROC", "0")  # Random weights see little.
    monkeypatch.setenv("CAPSAD_IMAGE_SIZE", "96x96")  # a quarter of the time
    printed, shown = execute("photographs", tmp_path, monkeypatch)
    assert sum("image/png" in data for data in shown) == 2
    assert "260 colour images" in printed
    assert "detector patch_knn" in printed
    assert "pixels of 40 images with masks" in printed
    flagged = re.findall(r"^(\w+) +(\d+) of (\d+) flagged$", printed, re.MULTILINE)
    shares = {kind: int(count) / int(total) for kind, count, total in flagged}
    assert shares.keys() == {"good", "hole", "stain", "thread"}
    assert shares["good"] <= 0.15
