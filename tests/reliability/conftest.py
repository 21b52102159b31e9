"""What fails on purpose here, and the table of how often it did harm."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_TABLE = pytest.StashKey[dict]()


def pytest_addoption(parser):
    parser.addoption("--reliability-table", metavar="FILE", help="Write the table of faults.")


def pytest_configure(config):
    config.stash[_TABLE] = defaultdict(lambda: [0, 0])


@pytest.fixture
def survived(request):
    """Counts a trial of a fault, and whether it was survived; a harm also fails the test."""

    def record(fault, harm=""):
        row = request.config.stash[_TABLE][fault]
        row[0] += 1
        row[1] += bool(harm)
        assert not harm, f"{fault}: {harm}"

    return record


def pytest_sessionfinish(session):
    path = session.config.getoption("--reliability-table")
    if not path:
        return
    from pipeline import machine

    lines = [
        "# What was broken on purpose, and what it did",
        "",
        "`make reliability` writes this table. *Survived* means: the same result as without the",
        "fault, or one sentence that names what is wrong, and nothing half-written, nothing lost,",
        "no wrong score. `tests/reliability/` has the trials.",
        "",
        "| fault | tried | survived | lost |",
        "|---|---:|---:|---:|",
        *(
            f"| {fault} | {tried:,} | {tried - lost:,} | {lost:,} |"
            for fault, (tried, lost) in session.config.stash[_TABLE].items()
        ),
        "",
        machine.describe(),
        "",
    ]
    Path(path).write_text("\n".join(lines))


class Capsad:
    """The command in a folder, as a process of its own."""

    RUN = ("run", "digits", "--epochs", "3", "--json", "--output", "out")

    def __init__(self, folder):
        self.folder = folder

    @property
    def serving(self):
        return self.folder / "out" / "serving"

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-c", "from pipeline.command import main; main()", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *arguments):
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def run(self, *more):
        """The auROCs of a run that must succeed."""
        code, output = self(*self.RUN, *more)
        assert code == 0, output
        return json.loads(output.splitlines()[-1])["auroc"]


def is_one_sentence(code, output):
    """Whether a command refused with one clear line."""
    errors = [line for line in output.splitlines() if line.startswith("Error: ")]
    return code == 2 and len(errors) == 1 and not re.search("Traceback", output)


@pytest.fixture
def capsad(tmp_path):
    return Capsad(tmp_path)


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """A whole run, undisturbed: the command in its folder, and its auROCs."""
    command = Capsad(tmp_path_factory.mktemp("reference"))
    return command, command.run()
