import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from components.data import sources
from models import detectors
from pipeline import cli, configs
from pipeline.knobs import knobs

ROOT = Path(__file__).parents[3]


@pytest.fixture
def capsad(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.main, arguments)


def images(folder, counts, size=(8, 8)):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(index).integers(0, 256, size, dtype="uint8")
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mnis"], "Unknown data set 'mnis'.*Did you mean mnist"),
        (["run", "digits", "--min-auroc", "nan"], "'--min-auroc': nan is no finite number"),
        (["score", "--alpha", "nan", "a", "b"], "nan is no finite number"),
        (["score", "--timeout", "inf", "a", "b"], "inf is not in the range 0<x<=86400"),
        (["run", "digits", "--source-option", "max_pixels=5"], "not an option.*See --max-pixels"),
        (["run", "digits", "--set", "epochs=0"], "0 is not in the range x>=1"),
        (["run", "digits", "--set", "filters=0"], "filters must be a whole number of at least 1"),
        (["run", "digits", "--detector", "capsnt"], "Unknown detector 'capsnt'"),
        (["run", "digits", "--anomaly", "ten"], "Unknown anomaly class 'ten'"),
        (
            ["run", "digits", "--anomaly", ""],
            "No anomaly class is given.*See --anomaly .CAPSAD_ANOMALY",
        ),
        (
            ["run", "digits", "--anomaly", "0,1,2,3,4,5,6,7,8", "--detector", "cnn_softmax"],
            "leaves only the normal class '9'.* needs at least 2.* "
            "capsnet, efficient_capsnet, vae, dbn",
        ),
        (
            ["run", "digits", "--limit-per-class", "1"],
            "Class .* left to train on; a class needs",
        ),
        (["run", "digits", "--set", "epoch=3"], "no setting 'epoch'"),
        (["run", "digits", "--set", "epochs"], "not of the form NAME=VALUE"),
        (["run", "digits", "--set", "seed=3"], "'seed' .* cannot be given.*See --seed"),
        (["run", "digits", "--set", "backup_dir=x"], "'backup_dir' .* cannot be given"),
        (["run", "digits", "--source-option", "max_pixels=5"], "not an option.*See --max-pixels"),
        (["run", "digits", "--set", "epochs=0"], "0 is not in the range x>=1.*See --epochs"),
        (["run", "digits", "--epochs", "1", "--set", "epochs=7"], "epochs is given twice"),
        (
            ["run", "digits", "--weights", "a", "--set", "weights=b"],
            "weights is given twice.*See --weights .CAPSAD_WEIGHTS",
        ),
        (["run", "digits", "--set", "weights=5"], "weights must be a text, not 5.*See --weights"),
        (["run", "digits", "--eval-fraction", "1"], "--eval-fraction"),
        (["run", "digits", "--image-size", "0"], "--image-size.*'0' is not a size"),
        (["run", "--images", "x", "--data-dir", "y"], "not both"),
        (["run", "digits", "--output", "/proc/x"], "--output.: /proc cannot be written"),
        (["run", "digits", "--epochs", "0"], "--epochs.*0 is not in the range"),
        (["run", "digits", "--min-auroc", "2"], "--min-auroc"),
        (["run", "mnist", "--data-dir", "nowhere"], "nowhere is not a folder"),
        (["run", "--images", "nowhere", "--anomaly", "a"], "nowhere does not exist"),
        (["run", "mnist", "--images", "."], "not both"),
        (["run", "digits", "--beam-arg", "x"], "Beam argument 'x' is not of the form"),
        (["run", "digits", "--beam-arg=--runner=DaskRunner"], "silently loses data"),
        (["run", "digits", "--score-images", "nowhere"], "input nowhere does not exist"),
        (["score", "nowhere", ".", "--beam", "--output", "o"], "nowhere holds no pushed model"),
        (["score", ".", ".", "--beam", "--output", "o", "--format", "csv"], "--format tfrecord"),
        (["score", ".", ".", "--beam"], "--output DIR"),
        (["score", "--url", "http://x:1", ".", "--beam", "--output", "o"], "not a --url"),
        (["score", ".", ".", "--format", "parquet"], "go with --beam"),
        (["score", ".", "nowhere"], "nowhere does not exist"),
        (["report", "nowhere"], "holds no finished run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsad, arguments, message, tmp_path):
    result = capsad(*arguments)
    assert result.exit_code == 2
    assert re.search(message, " ".join(result.output.split()))
    assert "Traceback" not in result.output
    assert not os.listdir(tmp_path)


def test_a_class_with_too_few_images(capsad, tmp_path):
    images(tmp_path / "data", {"a": 20, "b": 1, "c": 20})
    result = capsad("run", "--images", "data", "--anomaly", "c")
    assert result.exit_code == 2
    assert "Class 'b' has 1 images in the training part, and" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["kubeflow", "run", "--help"],
        ["score", "--help"],
        ["detectors"],
        ["datasets"],
    ],
)
def test_help_and_lists_are_there_at_once(arguments):
    code = (
        "import sys; sys.argv[0] = 'capsad'; from pipeline.cli import main; "
        "main(standalone_mode=False); "
        "assert not {'tensorflow', 'keras', 'tfx'} & set(sys.modules)"
    )
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert time.monotonic() - started < 3  # alone on a machine it is well below one
    assert len(result.stdout.splitlines()) > 3


def test_help_says_a_default_only_where_it_holds():
    def options(*command):
        found = cli.main
        for name in command:
            found = found.commands[name]
        return {option.name: getattr(option, "help", "") for option in found.params}

    run, submit, inspect = options("run"), options("kubeflow", "submit"), options("inspect")
    for knob in knobs(configs.PipelineConfig):
        sections = [
            getattr(config, knob.section) if knob.section else config
            for config in map(configs.get, configs.names())
        ]
        values = [getattr(section, knob.name) for section in sections]
        if f"[default: {knob.field.default}]" in run[knob.name]:
            assert values == values[:1] * len(values)
        assert "[default" not in submit.get(knob.name, "")
    assert run["anomaly"].endswith("[default: depends on the data]  [CAPSAD_ANOMALY]")
    assert "[default: 0.2]" in run["test_fraction"]
    assert not {"data_dir", "source_options"} & inspect.keys()


@pytest.mark.parametrize("after", [0.15, 0.3, "log"])
def test_ctrl_c_is_no_traceback_and_says_how_to_go_on(after, tmp_path):
    # Who starts the tests in the background ignores the signal, and processes inherit that.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pipeline.command import main; print('ready', flush=True); main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", "digits"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    if after == "log":
        while not list(tmp_path.glob("runs/*/log.txt")):
            assert process.poll() is None
            time.sleep(0.05)
    else:
        time.sleep(after)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    if after == "log":
        assert output.endswith("Stopped. The same command goes on where this one stopped.\n")


@pytest.mark.parametrize("command", [["compile"], ["run", "--host", "http://localhost"]])
def test_kubeflow_without_kfp(capsad, monkeypatch, tmp_path, command):
    monkeypatch.setitem(sys.modules, "kfp", None)
    result = capsad("kubeflow", *command, "digits", "--image", "capsad:1")
    assert result.exit_code == 2
    assert re.fullmatch(r"Error: Kubeflow needs kfp, which is not installed: .*\n", result.output)
    assert not os.listdir(tmp_path)


def test_an_option_goes_before_a_variable_and_keeps_its_settings(monkeypatch):
    monkeypatch.setenv("CAPSAD_DETECTOR", "vae")
    monkeypatch.setenv("CAPSAD_EPOCHS", "7")
    seen = []
    monkeypatch.setattr(cli.run, "plan", lambda config: seen.append(config) or sys.exit())
    arguments = ("run", "digits", "--detector", "dbn", "--set", "hidden_units=[5, 6]")
    CliRunner().invoke(cli.main, arguments)
    assert seen[0].training.detector == "dbn"
    assert seen[0].training.settings == {"hidden_units": [5, 6]}
    assert seen[0].training.epochs == 7


def test_kubeflow_describes_a_run_by_the_same_options():
    run, compiled = cli.main.commands["run"], cli.main.commands["kubeflow"].commands["compile"]
    own = {"images", "data_dir", "output", "infra_validation", "score_images"}
    own |= {"as_json", "quiet", "mlflow_uri"}
    shared = {option.name for option in run.params} - own
    assert {"name", "anomaly", "detector", "epochs", "settings", "seed"} <= shared
    assert shared <= {option.name for option in compiled.params}


def test_datasets_says_what_is_there_and_how_to_get_the_rest(capsad, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    output = capsad("datasets").output
    assert re.search(r"digits .*\n  found: .*scikit-learn\)\n  train: +0 178, 1 182", output)
    assert re.search(r"smallnorb .*\n  missing: .*\n  get it: +Put the six files", output)
    assert output.count("licence:") == 6


def test_datasets_lists_the_others_if_one_is_broken(capsad, monkeypatch, tmp_path):
    for file in sources.describe("mnist").files:
        (tmp_path / file).write_bytes(b"no idx file")
    monkeypatch.setenv("CAPSAD_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    result = capsad("datasets")
    assert result.exit_code == 1
    assert re.search(rf"\nmnist .*\n  broken: +{tmp_path}/t.* is ", result.output)
    assert re.search(r"digits .*\n  found: .*scikit-learn\)", result.output)
    assert result.output.count("licence:") == 6
    described = json.loads(capsad("datasets", "--json").stdout)["datasets"]
    assert [each["name"] for each in described if each["broken"]] == ["mnist"]


def test_detectors_lists_settings(capsad):
    output = capsad("detectors").output
    assert re.search(r"capsnet  .*scores conformity, pp, re", output)
    assert re.search(r"routing_iterations = 3 +[A-Z]", output)


def test_doctor_finds_this_environment_in_order(capsad):
    result = capsad("doctor")
    assert result.exit_code == 0, result.output
    assert re.search(r"ok +tfx +1\.", result.output)
    assert re.search(r"ok +digits", result.output)


def test_doctor_names_what_does_not_fit(capsad, monkeypatch):
    import importlib.metadata

    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "1.2.3" if name == "keras" else real(name)
    )
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    result = capsad("doctor")
    assert result.exit_code == 1
    assert re.search(r"wrong +keras +1.2.3, not 3.15.*\n +-> .*make setup", result.output)
    assert re.search(r"wrong +Keras backend +jax", result.output)


def test_the_table_of_detectors_in_the_docs():
    result = CliRunner().invoke(cli.main, ["detectors", "--markdown"])
    assert result.exit_code == 0
    assert result.output in (ROOT / "docs" / "choosing.md").read_text()


@pytest.mark.parametrize("name", detectors.names())
def test_the_page_of_each_detector(name):
    page = (ROOT / "docs" / "detectors" / f"{name}.md").read_text()
    detector = detectors.describe(name)
    assert page.startswith(f"# {name}: {detector.title}\n")
    for score in detector.scores:
        assert f"{score}(x)" in page
    for field in detector.settings():
        described = field.metadata["description"]
        assert f"| `{field.name}` | `{field.default}` | {described} |" in page
