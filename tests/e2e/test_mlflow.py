"""A run and its model in MLflow, in a folder of its own."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("mlflow")

import mlflow

import capsad
from pipeline import cli

pytestmark = pytest.mark.slow

_LOAD = """
import sys
import mlflow
import numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
images = np.load(sys.argv[2])
table = model.predict(images, params={"alpha": 0.3})
np.savez(sys.argv[3], score=table["anomaly_score"], flagged=table["flagged"])
"""


def run(*arguments):
    command = ["run", "digits", "--epochs", "3", "--json", *arguments]
    return CliRunner().invoke(cli.main, command)


def test_a_run_is_logged_once_and_its_model_gives_the_same_scores(tmp_path, fresh_python):
    store, output = str(tmp_path / "mlruns"), str(tmp_path / "out")
    first = run("--output", output, "--mlflow", store)
    assert first.exit_code == 0, first.output
    result = json.loads(first.stdout)
    client = mlflow.MlflowClient(tracking_uri=store)
    logged = client.get_run(result["mlflow"])
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "out"
    for score, value in result["auroc"].items():
        assert logged.data.metrics[f"auroc_{score}"] == pytest.approx(value)
    assert logged.data.metrics["blessed"] == 1
    assert logged.data.params["training.settings.epochs"] == "3"
    assert [point.step for point in client.get_metric_history(result["mlflow"], "loss")] == [
        1,
        2,
        3,
    ]
    names = {file.path for file in client.list_artifacts(result["mlflow"], "report")}
    assert {"report/report.html", "report/tables"} <= names

    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype="uint8")
    np.save(tmp_path / "images.npy", images)
    (model,) = (tmp_path / "mlruns").rglob("MLmodel")
    files = (tmp_path / "images.npy", tmp_path / "scores.npz")
    fresh_python(_LOAD, model.parent, *files, ours=True)
    expected = capsad.load(output).score(images)
    with np.load(tmp_path / "scores.npz") as found:
        np.testing.assert_allclose(found["score"], expected["anomaly_score"], atol=1e-6)
        np.testing.assert_array_equal(found["flagged"], expected.flagged(0.3))
    assert not list(model.parent.rglob("*.pkl"))

    again = run("--output", output, "--mlflow", store)
    assert json.loads(again.stdout)["mlflow"] == result["mlflow"]


def test_a_server_that_does_not_answer_is_told_before_anything_runs(tmp_path):
    refused = run("--output", str(tmp_path / "out"), "--mlflow", "http://localhost:9")
    assert refused.exit_code == 2
    assert "MLflow at http://localhost:9 cannot be used: " in refused.output
    assert "See --mlflow." in refused.output
    assert not (tmp_path / "out").exists()
