import fcntl
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import auc

from models import metrics
from models.errors import UserError
from pipeline import cli, configs
from pipeline.study import cards, figures, results
from pipeline.study import run as study_run
from pipeline.study.cells import HOLD_OUT, OPEN_SET, Cell, make_cells
from pipeline.study.run import run

QUICK = ("study", "digits", "--detector", "cnn_softmax", "--epochs", "1", "--limit-per-class", "40")


def capsad(*arguments):
    return CliRunner().invoke(cli.main, arguments)


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def studied(folder):
    return results.read(folder / "runs" / "study")


def test_finished_cells_are_never_repeated_and_studies_share_them(in_a_folder):
    first = capsad(*QUICK, "--anomaly", "9")
    assert first.exit_code == 0, first.output
    (before,) = studied(in_a_folder)
    second = capsad(*QUICK, "--anomaly", "9", "--anomaly", "0,3", "--detector", "dbn")
    assert second.exit_code == 0, second.output
    assert not list(in_a_folder.glob("runs/study/training/*/*"))

    found = studied(in_a_folder)
    assert before in found  # with the seconds of the first training
    assert {(r["anomaly"], r["detector"]) for r in found} == {
        (anomaly, name) for anomaly in ("9", "0,3") for name in ("cnn_softmax", "dbn")
    }
    assert len(found) == 4
    with np.load(in_a_folder / "runs/study/cells" / f"{before['cell']}.npz") as kept:
        auroc = metrics.auroc(-kept["msp"], kept["is_anomaly"])
        flagged = (kept["anomaly_score"] > 0.95)[~kept["is_anomaly"]].mean()
    msp = before["scores"]["msp"]
    assert msp["auroc"] == pytest.approx(auroc, abs=1e-6)
    assert msp["auroc_low"] < auroc < msp["auroc_high"]
    assert auc(results.FALSE_RATES, msp["roc"]) == pytest.approx(auroc, abs=0.02)
    assert before["false_alarms_at_0.05"] == pytest.approx(flagged, abs=1e-6)
    assert before["settings"] == {"batch_size": 50, "epochs": 1}


def test_a_cell_is_repeated_if_the_code_has_changed(in_a_folder, monkeypatch):
    config = configs.override(configs.get("digits"), epochs=1, limit_per_class=40)
    run(make_cells(config, ["dbn"], ("9",), [0]), in_a_folder, lambda *_: None)
    (first,) = results.read(in_a_folder)
    monkeypatch.setattr(Cell, "code", "other")
    run(make_cells(config, ["dbn"], ("9",), [0]), in_a_folder, lambda *_: None)
    (second,) = results.read(in_a_folder)
    assert (first["code"], second["code"]) == (first["code"], "other")
    assert first["code"] != "other"
    assert first["cell"] == second["cell"]
    assert first["scores"] == second["scores"]


def test_a_training_on_another_backend_is_replaced_and_never_averaged(in_a_folder, monkeypatch):
    config = configs.override(configs.get("digits"), epochs=1, limit_per_class=40)
    run(make_cells(config, ["dbn"], ("9",), [0]), in_a_folder, lambda *_: None)
    (first,) = results.read(in_a_folder)
    monkeypatch.setattr("pipeline.study.cells.backend_name", lambda: "another")
    run(make_cells(config, ["dbn"], ("9",), [0]), in_a_folder, lambda *_: None)
    (second,) = results.read(in_a_folder)
    assert first["cell"] != second["cell"]
    assert [path.stem for path in (in_a_folder / "cells").iterdir()] == [second["cell"]]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--batch-size", "20"), r"with batch_size = 50, not batch_size = 20: name another"),
        (("--image-size", "10"), r"with image_size = \[16, 16\], not image_size = \[10, 10\]"),
    ],
)
def test_results_of_other_settings_are_not_mixed(in_a_folder, options, told):
    first = capsad(*QUICK, "--anomaly", "9")
    assert first.exit_code == 0, first.output
    before = studied(in_a_folder)
    refused = capsad(*QUICK, "--anomaly", "8", *options)
    assert refused.exit_code == 2
    assert re.search(rf"results of cnn_softmax on digits {told}", refused.output)
    assert "See --output." in refused.output
    assert studied(in_a_folder) == before


def test_two_results_of_one_training_are_refused(in_a_folder):
    (in_a_folder / "mixed").mkdir()
    first = result("9", 0, 0.8)
    first |= dict.fromkeys(("tested", "backend"), "0") | {"cell": "one"}
    first["scores"]["re"] |= {"aupr": 0.5, "roc": []}
    results.add(in_a_folder / "mixed", first)
    table = in_a_folder / "mixed" / "results.csv"
    row = table.read_text().splitlines()[1]
    with table.open("a") as file:
        file.write(row.replace(",one,", ",other,") + "\n")
    told = capsad("tables", "mixed")
    assert told.exit_code == 2
    assert "two results of vae on mnist, anomaly 9, seed 0" in told.output
    assert "delete the rows of cell one or other." in told.output


def test_a_cell_is_named_by_all_that_its_results_depend_on(in_a_folder):
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
    weights = in_a_folder / "weights.h5"
    own = configs.override(config, weights=str(weights), detector="patch_knn")
    for content in ("a", "b"):
        weights.write_text(content)
        others.add(name(detector="patch_knn", config=own))
    assert len(others) == 9


def test_each_class_in_turn_is_the_default():
    cells = make_cells(configs.get("digits"), ["vae", "dbn"], (), [0, 1])
    assert [cell.about["anomaly"] for cell in cells[::4]] == list("0123456789")
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
    training = in_a_folder / "training" / f"{cell.name}-{cell.code}"
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


def test_the_time_left_if_only_the_test_has_anomalies(tmp_path):
    for index, folder in enumerate(("train/good", "test/good", "test/hole")):
        (tmp_path / folder).mkdir(parents=True)
        for shade in range(6):
            image = np.full((8, 8), 40 * shade + index, "uint8")
            Image.fromarray(image).save(tmp_path / folder / f"{shade}.png")
    config = configs.override(configs.get("images"), images=str(tmp_path), image_size=(8, 8))
    (cell,) = make_cells(config, ["vae"], ("hole",), [0])
    assert cell.passes == 6 * cell.plan.detector.epochs


def test_a_network_that_draws_no_images_has_tables_too(tmp_path):
    found = [result("9", 0, 0.7, "capsnet", "conformity")]
    found[0]["scores"]["conformity"]["roc"] = results.FALSE_RATES
    (tmp_path / "cells").mkdir()
    np.savez(tmp_path / "cells" / f"{found[0]['cell']}.npz", is_anomaly=np.array([True]))
    figures.write(found, tmp_path)
    assert list((tmp_path / "figures").glob("roc-*"))
    assert not list((tmp_path / "figures").glob("reconstructions-*"))


def result(anomaly, seed, auroc, detector="vae", score="re"):
    measured = {"auroc": auroc, "auroc_low": auroc - 0.01, "auroc_high": auroc + 0.01}
    measured["fpr_at_95_tpr"] = 0.25
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
        "false_alarms_at_0.05": 0.04,
        "false_alarms_at_0.01": 0.008,
        "data": {"image_size": [28, 28]},
        "settings": {},
        "cell": f"{anomaly}-{detector}-{seed}",
        "code": "0123",
        "machine": "Machine",
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
    assert "| vae | 1 | 0.900 | 1,000 | 20 | 50 | 4,000 |" in text
    (picture,) = (tmp_path / "figures").glob("*.png")
    assert picture.stat().st_size > 10_000


def test_times_of_different_machines_are_told_apart(tmp_path):
    found = [result("9", 0, 0.8), result("2", 0, 0.9), result("2", 0, 0.9, "dbn")]
    for old in (found[0], found[2]):
        old |= {"machine": "Old machine, 1 core", "seconds": 200.0}
    text = figures.write(found, tmp_path).read_text()
    assert "1. Machine.\n2. Old machine, 1 core.\n" in text
    rows = [line for line in text.splitlines() if line.endswith("| 4,000 |")]
    assert rows == [
        "| dbn | 2 | 0.900 | 1,000 | 200 | 50 | 4,000 |",
        "| vae | 1 | 0.900 | 1,000 | 20 | 50 | 4,000 |",
        "| vae | 2 | 0.900 | 1,000 | 200 | 50 | 4,000 |",
    ]


def test_a_card_says_where_a_model_is_weak(tmp_path):
    found = [
        result("9", 0, 0.7, "capsnet", "conformity"),
        result("2", 0, 0.9, "capsnet", "conformity"),
    ]
    found[0]["scores"]["re"] = {**found[0]["scores"]["conformity"], "auroc": 0.75}
    found[1]["scores"]["re"] = {**found[1]["scores"]["conformity"], "auroc": 0.91}
    assert cards.write(found, tmp_path) == 1
    text = (tmp_path / "mnist-hold-out-capsnet-1-epochs.md").read_text()
    assert "| 9 | 0.700 (0.690 to 0.710) | 0.250 | 0.040 | 0.008 | 0.900 |" in text
    assert "finds some anomalies badly (auROC below 0.8): 9 (0.70)." in text
    assert "* The score `re` is better for 9 (0.75 against 0.70)." in text
    assert "    capsad study mnist --detector capsnet --epochs 1 --seed 0" in text
    row = "(mnist-hold-out-capsnet-1-epochs.md) | mnist | hold-out | 1 epoch | 2 | 0.800 |"
    assert row in (tmp_path / "README.md").read_text()


def test_scores_of_earlier_versions_are_named_as_such(tmp_path):
    earlier = "conformity of 0.2.0"
    found = [
        result("9", 0, 0.7, "capsnet", earlier),
        result("2", 0, 0.9, "capsnet", earlier),
        result("0", 0, 0.8, "efficient_capsnet", earlier),
    ]
    for one in found:
        one["scores"][earlier]["roc"] = results.FALSE_RATES
    table = figures.write(found, tmp_path).read_text()
    assert f"| anomaly | capsnet `{earlier}` | efficient_capsnet `{earlier}` |" in table
    card = tmp_path / "mnist-hold-out-capsnet-1-epochs.md"
    cards.write(found, tmp_path)
    assert f"| score | `{earlier}`, calibrated to `anomaly_score` |" in card.read_text()
    assert "| 2 | 0.900 (" in card.read_text()

    # One that was trained again is not averaged with the others.
    found[1]["scores"] = {"conformity": found[1]["scores"][earlier]}
    cards.write(found, tmp_path)
    assert "| score | `conformity`, calibrated" in card.read_text()
    assert "| 9 |" not in card.read_text()
    table = figures.write(found, tmp_path).read_text()
    assert "| 9 | – | **0.700** (0.690 to 0.710) |" in table


def test_the_committed_tables_are_those_of_the_committed_results(tmp_path, monkeypatch):
    monkeypatch.setattr(figures.figures, "png", lambda _: b"")  # Pixels are not compared.
    docs = Path(__file__).parents[3] / "docs"
    study = docs / "results" / "study"
    found = results.read(study)
    made = figures.write(found, tmp_path)
    assert made.read_text() == (study / "results.md").read_text()
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert drawn <= {path.name for path in (study / "figures").glob("*.png")}
    cards.write(found, tmp_path / "cards")
    written = {path.name: path.read_text() for path in (tmp_path / "cards").iterdir()}
    assert written == {path.name: path.read_text() for path in (docs / "models").iterdir()}


def test_broken_results_are_named(in_a_folder):
    run(
        make_cells(
            configs.override(configs.get("digits"), epochs=1, limit_per_class=40),
            *(["dbn"], ("9",), [0]),
        ),
        in_a_folder / "runs" / "study",
        lambda *_: None,
    )
    table = in_a_folder / "runs" / "study" / "results.csv"
    whole = table.read_text()
    for broken in (whole[: len(whole) - 40], whole.replace("dbn,0,", "dbn,,"), "a,b\n1,2\n"):
        table.write_text(broken)
        outcome = capsad("tables")
        assert outcome.exit_code == 2
        assert f"{Path('runs/study/results.csv')} is broken" in outcome.output
        assert "put back a whole copy" in outcome.output
    table.unlink()
    assert "first run `capsad study`" in capsad("tables").output


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
        return real(cell, *arguments)

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
      "--epochs", "1", "--limit-per-class", "40"], standalone_mode=False)
main(["tables"])
"""


def test_a_study_runs_under_jax_without_tensorflow(fresh_python, tmp_path):
    output = fresh_python(_WITHOUT_TENSORFLOW, ours=True, KERAS_BACKEND="jax")
    assert "conformity" in output
    found = results.read(tmp_path / "runs" / "study")
    assert [result["backend"] for result in found] == ["jax", "jax"]
    assert (tmp_path / "runs" / "study" / "results.md").exists()
