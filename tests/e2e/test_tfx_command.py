"""The TFX command, from another folder and with an absolute path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def tfx(tmp_path):
    def run(*arguments, wait=True, **variables):
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("tfx")), *arguments, "--engine", "local"],
            cwd=tmp_path,
            env={
                **os.environ,
                "HOME": str(tmp_path),  # where TFX remembers pipelines
                "CAPSAD_PIPELINE": "capsad_digits",
                "CAPSAD_OUTPUT": str(tmp_path / "out"),
                "CAPSAD_EPOCHS": "3",
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return process.communicate()[0] if wait else process

    return run


def test_a_run_ends_with_the_verdict_and_two_at_once_are_refused(tfx, tmp_path):
    created = tfx("pipeline", "create", "--pipeline_path", f"{ROOT}/pipeline/local_runner.py")
    assert 'Pipeline "capsad_digits" created successfully.' in created
    assert not (tmp_path / "out" / "serving").exists()

    run = ("run", "create", "--pipeline_name", "capsad_digits")
    first = tfx(*run, wait=False)
    lines = iter(first.stdout.readline, "")
    assert any("HoldOutExampleGen" in line for line in lines)  # It has begun.
    second = tfx(*run)
    assert f"Another run is using {tmp_path / 'out'}: wait for it" in second
    told = "".join(lines)
    first.wait()
    assert "anomaly_score" in told
    assert "Blessed: " in told or "Not blessed" in told
    assert "  report:  " in told
    assert "  model:   " in told
    assert (tmp_path / "out" / "log.txt").stat().st_size > 0
    assert (tmp_path / "out" / "metadata.sqlite").exists()
