"""Whole runs of the digits pipeline, as a user starts them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline import configs
from pipeline.plan import plan
from pipeline.study import results
from tests.json_schema import valid_json

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUICK = ("run", "digits", "--epochs", "3", "--json", "--output", "out")


class Run:
    """A finished command."""

    def __init__(self, process, output):
        self.code = process.returncode
        self.output = output

    @property
    def result(self):
        """What --json printed."""
        assert self.code == 0, self.output
        return json.loads(self.output.splitlines()[-1])

    @property
    def cached(self):
        """The components whose results came from the cache."""
        return {name for name, took in self.result["components"].items() if took["cached"]}


class Workplace:
    """A folder with a copy of the code, to run in and to change."""

    def __init__(self, folder):
        self.folder = folder
        for package in ("models", "components", "pipeline"):
            shutil.copytree(ROOT / package, folder / package)

    def start(self, *arguments, **environment):
        return subprocess.Popen(
            [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def capsad(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=500)
        return Run(process, output)

    def served(self):
        return sorted(path.name for path in (self.folder / "out" / "serving").glob("*"))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("workplace"))


@pytest.fixture(scope="module")
def first(workplace):
    return workplace.capsad(*QUICK)


def test_trains_blesses_pushes_and_reports(first, workplace):
    result = first.result
    assert result["blessed"] is True
    assert set(result["auroc"]) == {"conformity", "pp", "re", "anomaly_score"}
    assert result["auroc"]["anomaly_score"] > 0.75
    assert result["accuracy"] > 0.8
    assert Path(result["report"]).name == "report.html"
    assert Path(result["report"]).stat().st_size > 100_000
    assert workplace.served() == [Path(result["pushed"]).name]
    assert {
        "HoldOutExampleGen",
        "StatisticsGen",
        "SchemaGen",
        "ExampleValidator",
        "DataGate",
        "Trainer",
        "Evaluator",
        "Report",
        "Pusher",
    } <= set(result["components"])
    valid_json(result)


def test_quiet_and_json(first, workplace):
    assert len(first.output.splitlines()) == 1
    quiet = workplace.capsad(*(word for word in QUICK if word != "--json"), "--quiet")
    assert quiet.output.startswith("\n  score           auROC\n")
    found = workplace.capsad("report", "out", "--json")
    told = valid_json(json.loads(found.output))
    assert told["auroc"] == first.result["auroc"]


def test_the_console_has_no_noise(first, workplace):
    output = workplace.capsad(*(word for word in QUICK if word != "--json")).output
    assert len(output.splitlines()) < 40
    assert not re.search(r"WARNING|INFO|Warning|Traceback", output)
    assert re.search(r"log: .*log.txt", output)
    assert re.search(r"^  Trainer +[\d.]+ s  \(cached\)$", output, re.MULTILINE)


def test_the_report_agrees_with_the_pushed_model(first, workplace):
    """The auROC recomputed from the table of images, by scikit-learn."""
    import csv

    from sklearn.metrics import roc_auc_score

    tables = Path(first.result["report"]).parent / "tables"
    with (tables / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    is_anomaly = np.array([int(row["is_anomaly"]) for row in rows])
    assert is_anomaly.mean() == 0.5
    for score, sign in (("pp", -1), ("re", -1), ("anomaly_score", 1)):
        values = sign * np.array([float(row[score]) for row in rows])
        expected = roc_auc_score(is_anomaly, values)
        assert first.result["auroc"][score] == pytest.approx(expected, abs=1e-9)


def test_a_study_gives_the_same_auroc(first, workplace):
    study = ("study", "digits", "--anomaly", "9", "--epochs", "3", "--output", "study")
    told = valid_json(workplace.capsad(*study, "--json").result)
    assert {row["score"] for row in told["scores"]} == {"conformity", "pp", "re", "anomaly_score"}
    (found,) = results.read(workplace.folder / "study")
    assert found["accuracy"] == pytest.approx(first.result["accuracy"], abs=1e-6)
    for score, auroc in first.result["auroc"].items():
        assert found["scores"][score]["auroc"] == pytest.approx(auroc, abs=2e-6)


_SCORE = """
import sys, numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
outputs = model.signatures["explain_arrays"](images=tf.constant(np.load(sys.argv[2])))
np.savez(sys.argv[3], **{name: value.numpy() for name, value in outputs.items()})
"""


def test_the_pushed_model_gives_the_in_process_scores(first, workplace, tmp_path, fresh_python):
    from models.loading import load_model

    scorer = load_model(Path(first.result["pushed"], "assets.extra", "model.keras"))
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype="uint8")
    np.save(tmp_path / "images.npy", images)
    fresh_python(_SCORE, first.result["pushed"], tmp_path / "images.npy", tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz") as served:
        for name, value in scorer(images).items():
            np.testing.assert_allclose(served[name], value, atol=1e-5)


def test_the_pushed_model_carries_warm_up_requests(first):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from components.serving.export import WARMUP_FILE

    model = tf.saved_model.load(first.result["pushed"])
    for record in tf.data.TFRecordDataset(str(Path(first.result["pushed"], WARMUP_FILE))):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(t)) for name, t in request.inputs.items()}
        outputs = model.signatures[request.model_spec.signature_name](**inputs)
        if "metadata" in outputs:
            known = json.loads(outputs["metadata"].numpy()[0])
            assert (known["detector"], known["seed"], known["alpha"]) == ("capsnet", 0, 0.05)
            continue
        assert outputs["pp"].shape == (8,)
        # Normal images: most are not flagged.
        assert np.median(outputs["anomaly_score"]) < 0.95


def test_images_are_scored_by_the_pushed_model(first, workplace, to_png):
    from sklearn.datasets import load_digits

    digits = load_digits()
    folder = workplace.folder / "images"
    folder.mkdir()
    for index in range(100):
        image = (digits.images[index] * (255 / 16)).astype("uint8")[..., None]
        (folder / f"{index:03d}.png").write_bytes(to_png(image))
    scored = workplace.capsad("score", "out", "images", "--format", "jsonl", "--output", "scores")
    assert scored.code == 0, scored.output
    rows = [json.loads(line) for line in (workplace.folder / "scores").read_text().splitlines()]
    right = [
        row["most_similar_class"] == str(target)
        for row, target in zip(rows, digits.target[:100], strict=True)
        if target != 9
    ]
    assert np.mean(right) > 0.8


def test_darker_images_are_noticed_and_calibrated_for(first, workplace, to_png):
    """Images that were not trained on, first as they were, then darker, in the order of time."""
    splits = plan(configs.override(configs.get("digits"), epochs=3)).load_splits()
    normal = splits["test"].images[splits["test"].labels >= 0]
    for name, images in (
        ("usual", normal[:80]),
        ("darker", (normal[80:] * 0.4).astype("uint8")),
    ):
        (workplace.folder / name).mkdir()
        for number, image in enumerate(images):
            (workplace.folder / name / f"{number:03d}.png").write_bytes(to_png(image))

    def score(folder):
        file = f"{folder}.csv"
        scored = workplace.capsad("score", "out", folder, "--format", "csv", "--output", file)
        assert scored.code == 0, scored.output

    def watched(*folders):
        watch = workplace.capsad("watch", "--json", *(f"{folder}.csv" for folder in folders))
        return watch.code, valid_json(json.loads(watch.output.splitlines()[-1]))

    score("usual")
    code, found = watched("usual")
    assert (code, found["alarm"]) == (0, None)
    score("darker")
    code, found = watched("usual", "darker")
    assert code == 1
    assert found["alarm"]["number"] > 80
    assert found["alarm"]["name"].startswith("darker")
    some = sorted(str(path) for path in (workplace.folder / "darker").iterdir())[::2]
    before = workplace.served()
    told = valid_json(workplace.capsad("recalibrate", "out", "--json", *some).result)
    assert told["calibration_images"] == len(some)
    (version,) = set(workplace.served()) - set(before)
    for path in some:
        os.remove(path)  # They are known now.
    score("darker")
    code, found = watched("darker")
    assert (code, found["calibration_images"]) == (0, len(some))
    shutil.rmtree(workplace.folder / "out" / "serving" / version)


def test_the_cache(first, workplace):
    """An identical run is answered from it; changed code and changed settings are noticed."""
    again = workplace.capsad(*QUICK)
    assert {"HoldOutExampleGen", "Trainer", "Evaluator", "Report", "Pusher"} <= again.cached
    for key in ("auroc", "accuracy", "report", "pushed"):
        assert again.result[key] == first.result[key]

    def change(path):
        with (workplace.folder / path).open("a") as file:
            file.write("\n# changed\n")

    change("components/evaluation/report/tables.py")
    changed = workplace.capsad(*QUICK)
    assert {"HoldOutExampleGen", "Trainer", "Evaluator"} <= changed.cached
    assert "Report" not in changed.cached

    change("models/losses.py")
    changed = workplace.capsad(*QUICK)
    assert "HoldOutExampleGen" in changed.cached
    assert not {"Trainer", "Evaluator"} & changed.cached
    assert changed.result["auroc"] == first.result["auroc"]  # the same seed, the same result

    change("components/data/sources/stored_array.py")  # four imports below ExampleGen
    process = workplace.start(*(word for word in QUICK if word != "--json"))
    told = next(line for line in process.stdout if re.match(r"  HoldOutExampleGen .*s", line))
    process.kill()
    process.communicate()
    assert "(cached)" not in told


def test_a_model_that_learned_nothing_is_not_pushed(first, workplace):
    before = workplace.served()
    refused = workplace.capsad(*QUICK, "--set", "learning_rate=1e-7")
    assert refused.result["blessed"] is False
    assert refused.result["pushed"] is None
    assert workplace.served() == before
    assert "Not blessed" in refused.output
    assert "Not blessed" in Path(refused.result["report"]).read_text()
    assert workplace.capsad("compare", "out", "other").code == 2
    checks = refused.result["verdict"]["checks"]
    failed = [check for check in checks if not check["passed"]]
    assert any(check["outcome"].endswith("so it learned nothing") for check in failed)
    assert any(check["condition"].startswith("Accuracy on the normal") for check in failed)
    # Poses of random weights tell digits apart, so this may pass.
    (compared,) = (c for c in checks if c["condition"].endswith("the last blessed model's"))
    auroc, former = map(float, compared["outcome"].split(" against "))
    assert auroc == pytest.approx(refused.result["auroc"]["anomaly_score"], abs=1e-4)
    assert former == pytest.approx(first.result["auroc"]["anomaly_score"], abs=1e-4)


def test_a_second_run_in_the_same_folder_waits_its_turn(workplace):
    import fcntl

    lock = workplace.folder / "out" / ".lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = workplace.capsad(*QUICK)
    assert refused.code == 2
    assert "Another run is using" in refused.output


def test_killed_training_goes_on_from_the_last_epoch(tmp_path):
    workplace = Workplace(tmp_path)
    long = ("run", "digits", "--epochs", "12", "--output", "out")
    process = workplace.start(*long)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "out").rglob("resume/*/epoch-0000[3-9]")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert workplace.served() == []

    resumed = workplace.capsad(*long)
    assert "Blessed" in resumed.output
    assert re.search(r"HoldOutExampleGen .*\(cached\)", resumed.output)
    epochs = [int(number) for number in re.findall(r"^    Epoch (\d+) of 12", resumed.output, re.M)]
    assert 4 <= epochs[0] <= 12
    assert epochs[-1] == 12
    assert len(workplace.served()) == 1
    assert not list((tmp_path / "out").rglob("resume/*/epoch-*"))


def test_a_run_killed_in_one_component_after_another_is_completed_by_the_same_command(tmp_path):
    workplace = Workplace(tmp_path)
    # Stops for good just before what the component writes becomes visible.
    where = {
        "HoldOutExampleGen": (
            "components/data/example_gen/executor.py",
            "check_unreadable(unreadable, int(",
        ),
        "Evaluator": (
            "components/evaluation/metrics.py",
            "labels, predictions = accumulator.columns()",
        ),
        "Pusher": (
            "components/serving/pusher.py",
            "# The folder does not exist if the model is not blessed.",
        ),
    }
    for component, (file, line) in where.items():
        path = tmp_path / file
        code = path.read_text()
        assert code.count(line) == 1
        indent = " " * (12 if component == "Pusher" else 8)
        kill = f'if os.environ.get("KILL") == "{component}":\n{indent}    os.kill(os.getpid(), 9)\n'
        path.write_text("import os\n" + code.replace(line, f"{kill}{indent}{line}"))
    for component in where:
        killed = workplace.capsad(*QUICK, KILL=component)
        assert killed.code == -signal.SIGKILL, component
        assert [name for name in workplace.served() if name.isdecimal()] == []

    completed = workplace.capsad(*QUICK)
    assert completed.result["blessed"] is True
    assert "HoldOutExampleGen" in completed.cached
    assert len(workplace.served()) == 1
