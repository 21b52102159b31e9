"""The way of the TFX command, where every knob is a variable."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import configs
from pipeline.knobs import knobs
from pipeline.local import run as run_pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture
def local_runner(tmp_path):
    """Runs the file that the TFX command is given; bad input ends before TFX is imported."""

    def run(*command, **variables):
        return subprocess.run(
            [*(command or (sys.executable,)), str(ROOT / "pipeline" / "local_runner.py")],
            cwd=tmp_path,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CAPSAD_LIMIT_PER_CLASS": "-5"}, "CAPSAD_LIMIT_PER_CLASS: .*-5 is not in the range"),
        ({"CAPSAD_SEED": "-1"}, "CAPSAD_SEED: .*-1 is not in the range"),
        ({"CAPSAD_OUTPUT": "/proc/x"}, "CAPSAD_OUTPUT: .*/proc cannot be written"),
        ({"CAPSAD_PIPELINE": "capsad_images"}, "folder of images is not given. See CAPSAD_IMAGES"),
        ({"CAPSAD_IMAGES": "nowhere"}, "not both. See CAPSAD_IMAGES"),
        ({"CAPSAD_SETTINGS": "filters"}, "CAPSAD_SETTINGS: .*not of the form NAME=VALUE"),
        ({"CAPSAD_SETTINGS": "backup_dir=x"}, "'backup_dir' .* cannot be given"),
        ({"CAPSAD_ANOMALY": "ten"}, "Unknown anomaly class 'ten'.* See CAPSAD_ANOMALY"),
        ({"CAPSAD_MIN_AUROC": "2"}, "CAPSAD_MIN_AUROC: .*2.0 is not in the range"),
        ({"CAPSAD_STRATEGY": "all"}, "CAPSAD_STRATEGY: .*'all' is not one of"),
        ({"CAPSAD_MAX_UNREADABLE": "x"}, "CAPSAD_MAX_UNREADABLE: .*'x' is not a valid integer"),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(local_runner, variables, message):
    result = local_runner(**{"CAPSAD_PIPELINE": "capsad_digits", **variables})
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert re.search(message, line), line


def test_own_images_are_a_variable(local_runner, tmp_path):
    (tmp_path / "mine").mkdir()
    result = local_runner(CAPSAD_PIPELINE="capsad_images", CAPSAD_IMAGES="mine")
    assert "mine has no class folders" in result.stderr


def test_unknown_variables_are_told(local_runner):
    result = local_runner(CAPSAD_PIPELINE="digits", CAPSAD_EPOCH="3", CAPSAD_SEED="x")
    assert "Warning: The variable CAPSAD_EPOCH is unknown and has no effect. Did you mean " in (
        result.stderr
    )
    assert "CAPSAD_EPOCHS?" in result.stderr


def test_the_command_goes_before_the_variable(local_runner, tmp_path):
    """As `tfx run create --pipeline_name capsad_digits` starts it, below a process named tfx."""
    tfx = tmp_path / "tfx"
    tfx.write_text("import subprocess, sys; subprocess.run([sys.executable, sys.argv[-1]])")
    command = (sys.executable, str(tfx), "run", "create", "--pipeline_name", "capsad_digits")
    result = local_runner(*command, CAPSAD_PIPELINE="mnist", CAPSAD_ANOMALY="ten")
    warning, error = result.stderr.splitlines()
    assert warning == (
        "Warning: CAPSAD_PIPELINE is mnist, but the command names capsad_digits, which runs."
    )
    assert "Unknown anomaly class 'ten': the classes are 0, 1" in error


def test_every_knob_has_an_option_and_a_variable_of_its_own():
    found = list(knobs(configs.PipelineConfig))
    assert {"eval_fraction", "balanced_test", "max_auroc_drop", "settings", "images"} <= {
        knob.name for knob in found
    }
    for kind in ("option", "variable"):
        names = [getattr(knob, kind) for knob in found if getattr(knob, kind)]
        assert len(names) == len(set(names))
    # CAPSAD_DATA_DIR is where sources look first, so it is not that of --data-dir.
    assert [knob.name for knob in found if not knob.variable] == ["data_dir"]


@pytest.mark.parametrize("knob", knobs(configs.PipelineConfig), ids=lambda knob: knob.name)
def test_a_variable_sets_what_its_option_sets(knob, monkeypatch):
    text = {
        "images": "some/folder",
        "source_options": "camera=right",
        "anomaly": "1, 2",
        "image_size": "20x24",
        "balanced_test": "false",
        "infra_validation": "true",
        "detector": "vae",
        "settings": "shift=3 'decoder_units=[7, 8]'",
        "strategy": "one_device",
        "serving_device": "gpu",
        "output": "some/output",
        "score_images": "more images",
        "beam_args": "--runner=X '--name=a b'",
    }.get(knob.name, "0.25" if type_of(knob) is float else "7")
    name = "images" if knob.name in ("images", "data_dir") else "mnist"
    base = configs.get(name)
    if knob.variable is None:
        return
    monkeypatch.setenv(knob.variable, text)
    by_variable = configs.configure(name)
    monkeypatch.delenv(knob.variable)
    assert by_variable == configs.configure(name, **{knob.name: knob.split(text)}) != base
    part = getattr(by_variable, knob.section) if knob.section else by_variable
    expected = {
        "source_options": {"camera": "right"},
        "anomaly": ("1, 2",),
        "image_size": (20, 24),
        "balanced_test": False,
        "infra_validation": True,
        "settings": {"shift": 3, "decoder_units": [7, 8]},
        "beam_args": ("--runner=X", "--name=a b"),
    }.get(knob.name)
    assert getattr(part, knob.name) == (expected if expected is not None else type_of(knob)(text))


def type_of(knob):
    return {"FiniteRange": float, "IntRange": int}.get(type(knob.kind).__name__, str)


def test_beams_error_for_an_interrupt_is_an_interrupt(monkeypatch):
    from tfx.orchestration.local import local_dag_runner

    def fails_by(error):
        def fail(self, pipeline, options):
            raise error

        monkeypatch.setattr(local_dag_runner.LocalDagRunner, "run", fail)

    wrapped = ValueError("outer")
    wrapped.__cause__ = RuntimeError("KeyboardInterrupt [while running 'Decode']")
    for error in (RuntimeError("KeyboardInterrupt [while running 'x']"), wrapped):
        fails_by(error)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(None)
    fails_by(RuntimeError("no KeyboardInterrupt"))
    with pytest.raises(RuntimeError, match="^no KeyboardInterrupt$"):
        run_pipeline(None)
