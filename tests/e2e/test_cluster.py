"""One command on two machines, here two processes of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_all_run_the_same_command_and_the_chief_has_the_results(tmp_path):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    workers = [f"localhost:{listener.getsockname()[1]}" for listener in sockets]
    for listener in sockets:
        listener.close()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = "from pipeline.cli import main; main()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", command, "run", "digits", "--epochs", "2", "--output", "out"],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(temporary),
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
                ),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    chief, helper = (process.communicate(timeout=500)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0], chief + helper
    assert "Epoch 2 of 2" in chief and "accuracy on normal classes" in chief
    assert "trained along; the chief has the results" in helper
    assert "Epoch 2 of 2" in helper and "Trainer" in helper and "Evaluator" not in helper
    assert len(list((tmp_path / "out").rglob("history.json"))) == 1
    assert not list(temporary.glob("capsad-*"))
