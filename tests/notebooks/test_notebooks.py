import os
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def test_it_is_committed_without_outputs():
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.slow
def test_a_newcomer_sees_statistics_curves_and_reconstructions_and_no_warning(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    notebook = nbformat.read(NOTEBOOK, 4)
    resources = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=500, resources=resources).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    shown = [output.data for output in outputs if "data" in output]
    pages = "".join(data.get("text/html", "") for data in shown)

    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert not re.search("warning|deprecat|error|traceback", printed, re.IGNORECASE)
    assert sum("image/png" in data for data in shown) == 5
    assert "facets-overview" in pages
    assert "No anomalies found." in pages
    auroc = {name: float(value) for name, value in re.findall(r"auROC of (\w+) +([\d.]+)", printed)}
    assert auroc.keys() == {"pp", "re", "anomaly_score"}
    assert auroc["anomaly_score"] > 0.75
    assert "blessed: True" in printed
