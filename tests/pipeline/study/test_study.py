import csv
import fcntl
import json

import numpy as np
import pytest
from click.testing import CliRunner

from models import metrics
from models.errors import UserError
from pipeline import cli, configs
from pipeline.study import figures, results
from pipeline.study import run as study_run
from pipeline.study.cells import HOLD_OUT, OPEN_SET, make_cells
from pipeline.study.run import run

QUICK = ("study", "digits", "--detector", "cnn_softmax", "--epochs", "1", "--limit-per-class", "40")


def capsad(*arguments):
    return CliRunner().invoke(cli.main, arguments)


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells_of(folder):
    return sorted(path.parent for path in folder.glob("runs/study/cells/*/result.json"))


def test_finished_cells_are_never_repeated_and_studies_share_them(in_a_folder):
    first = capsad(*QUICK, "--anomaly", "9", "--figures")
    assert first.exit_code == 0, first.output
    (cell,) = cells_of(in_a_folder)
    written = (cell / "result.json").stat().st_mtime_ns
    second = capsad(*QUICK, "--anomaly", "9", "--anomaly", "0,3", "--detector", "dbn")
    assert second.exit_code == 0, second.output
    assert len(cells_of(in_a_folder)) == 4
    assert (cell / "result.json").stat().st_mtime_ns == written
    assert not list(in_a_folder.glob("runs/study/training/*/*"))

    with (in_a_folder / "runs/study/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(r["anomaly"], r["detector"]) for r in rows} == {
        (anomaly, name) for anomaly in ("9", "0,3") for name in ("cnn_softmax", "dbn")
    }
    result = json.loads((cell / "result.json").read_text())
    with np.load(cell / "scores.npz") as kept:
        auroc = metrics.auroc(-kept["msp"], kept["is_anomaly"])
    (row,) = (r for r in rows if r["cell"] == cell.name and r["score"] == "msp")
    assert float(row["auroc"]) == result["scores"]["msp"]["auroc"] == auroc
    assert float(row["auroc_low"]) < auroc < float(row["auroc_high"])


def test_a_cell_is_named_by_all_that_its_results_depend_on():
    config = configs.override(configs.get("digits"), epochs=1)

    def name(anomaly="9", seed=0, detector="vae", config=config, protocol=HOLD_OUT):
        chosen = () if protocol == OPEN_SET else (anomaly,)
        return make_cells(config, [detector], chosen, [seed], protocol)[0].name

    others = {
        name(anomaly="8"),
        name(seed=1),
        name(detector="dbn"),
        name(config=configs.override(config, epochs=2)),
        name(config=configs.override(config, limit_per_class=50)),
        name(config=configs.override(config, image_size=20)),
        name(protocol=OPEN_SET),
    }
    assert len(others) == 7
    assert name() not in others
    assert name() == name(config=configs.override(config, output="elsewhere"))


def test_each_class_in_turn_is_the_default():
    cells = make_cells(configs.get("digits"), ["vae", "dbn"], (), [0, 1])
    assert [cell.anomaly for cell in cells[::4]] == list("0123456789")
    assert len(cells) == 40


def test_the_open_set_protocol():
    cells = make_cells(configs.get("digits"), ["vae"], (), [0], OPEN_SET)
    assert [set(cell.plan.classes.normal_names) for cell in cells] == [
        set("245983"),
        set("326940"),
        set("583246"),
        set("378405"),
        set("634982"),
    ]
    assert all(cell.plan.hold_out["balanced"] is False for cell in cells)
    with pytest.raises(UserError, match="chooses the classes"):
        make_cells(configs.get("digits"), ["vae"], ("9",), [0], OPEN_SET)


def test_a_cell_that_another_study_runs_is_left_to_it(in_a_folder):
    (cell,) = make_cells(configs.get("digits"), ["dbn"], ("9",), [0])
    training = in_a_folder / "training" / cell.name
    training.mkdir(parents=True)
    with (training / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        problems = run([cell], in_a_folder, lambda *_: None)
    assert len(problems) == 1
    assert "another study" in problems[0]


def test_a_cell_that_fails_does_not_stop_the_others(in_a_folder):
    config = configs.override(
        configs.get("digits"), settings={"learning_rate": 1e30, "epochs": 1}, limit_per_class=40
    )
    good = configs.override(configs.get("digits"), epochs=1, limit_per_class=40)
    cells = make_cells(config, ["capsnet"], ("9",), [0])
    cells += make_cells(good, ["dbn"], ("9",), [0])
    problems = run(cells, in_a_folder, lambda *_: None)
    assert len(problems) == 1
    assert "Training diverged" in problems[0]
    assert [result["detector"] for result in results.read(in_a_folder)] == ["dbn"]


def test_the_time_left():
    cells = make_cells(configs.get("digits"), ["vae", "dbn"], ("9",), [0])
    assert np.isnan(results.seconds_left(cells, 0.0, []))
    finished = [{"detector": "vae", "epochs": 1, "images": 100, "seconds": 2.0}]
    each = cells[0].passes * 0.02
    assert results.seconds_left(cells, 0.0, finished) == pytest.approx(2 * each)
    assert results.seconds_left(cells, 0.5, finished) == pytest.approx(1.5 * each)
    finished.append({"detector": "dbn", "epochs": 2, "images": 100, "seconds": 2.0})
    assert results.seconds_left(cells, 0.0, finished) == pytest.approx(1.5 * each)


def result(anomaly, seed, auroc, detector="vae", score="re"):
    measured = {"auroc": auroc, "auroc_low": auroc - 0.01, "auroc_high": auroc + 0.01}
    return {
        "data_set": "mnist",
        "protocol": "hold-out",
        "epochs": 1,
        "anomaly": anomaly,
        "detector": detector,
        "seed": seed,
        "limit_per_class": None,
        "accuracy": 0.9,
        "images": 1000,
        "seconds": 20.0,
        "train_images_per_s": 50.0,
        "score_images_per_s": 4000.0,
        "versions": "Python",
        "scores": {score: measured},
    }


def test_tables_hold_means_and_spreads(tmp_path):
    results = [result("9", 0, 0.8), result("9", 1, 0.9), result("2", 0, 0.95)]
    results += [result("2", 0, 0.5, "dbn"), result("9", 0, 0.6, "dbn")]
    text = figures.write(results, tmp_path).read_text()
    assert "| 2 | **0.950** (0.940 to 0.960) | 0.500 (0.490 to 0.510) |" in text
    assert "| 9 | **0.850** (0.779 to 0.921) | 0.600 (0.590 to 0.610) |" in text
    assert "| mean ± standard deviation of the rows | **0.900** ± 0.050 | 0.550 ± 0.050 |" in text
    assert "In brackets: mean minus and plus one standard deviation over the seeds, or for" in text
    assert "| vae | 0.900 | 1,000 | 20 | 50 | 4,000 |" in text
    (picture,) = (tmp_path / "figures").glob("*.png")
    assert picture.stat().st_size > 10_000


def test_bad_options_are_refused(in_a_folder):
    for arguments, message in (
        (("study", "digit"), "Unknown data set 'digit'"),
        (("study", "digits", "--detector", "x"), "Unknown detector 'x'"),
        (("study", "digits", "--anomaly", "x"), "Unknown anomaly class 'x'"),
        (("study", "digits", "--anomaly", ""), "No anomaly class is given"),
    ):
        outcome = capsad(*arguments)
        assert outcome.exit_code == 2
        assert message in outcome.output
    assert not (in_a_folder / "runs").exists()


def test_an_unexpected_failure_of_a_cell_is_told_too(in_a_folder, monkeypatch):
    real = study_run._run_cell

    def failing(cell, *arguments):
        if cell.config.seed == 0:
            raise RuntimeError("out of luck\nand more")
        real(cell, *arguments)

    monkeypatch.setattr(study_run, "_run_cell", failing)
    outcome = capsad(
        *("study", "digits", "--detector", "dbn", "--anomaly", "9", "--epochs", "1"),
        *("--limit-per-class", "40", "--seed", "0", "--seed", "1"),
    )
    assert outcome.exit_code == 2
    assert "-dbn-0-" in outcome.output
    assert "failed: RuntimeError: out of luck. The same command runs what is mis" in outcome.output
    (found,) = results.read(in_a_folder / "runs" / "study")
    assert found["seed"] == 1


_WITHOUT_TENSORFLOW = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "tfx", "apache_beam", "tensorflow_datasets", "jinja2"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Missing())
from pipeline.cli import main
main(["study", "digits", "--detector", "capsnet", "--detector", "cnn_ocsvm", "--anomaly", "9",
      "--epochs", "1", "--limit-per-class", "40", "--figures"])
"""


def test_a_study_runs_under_jax_without_tensorflow(fresh_python, tmp_path):
    output = fresh_python(_WITHOUT_TENSORFLOW, ours=True, KERAS_BACKEND="jax")
    assert "conformity" in output
    found = results.read(tmp_path / "runs" / "study")
    assert [result["backend"] for result in found] == ["jax", "jax"]
    assert (tmp_path / "runs" / "study" / "results.md").exists()
