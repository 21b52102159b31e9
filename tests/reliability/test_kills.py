"""Runs that are killed, at the same time, or out of disk."""

import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from components.serving.sums import check_whole
from models.errors import UserError
from tests.reliability.conftest import Capsad, is_one_sentence

COMPONENTS = (
    *("HoldOutExampleGen", "StatisticsGen", "ExampleValidator", "Trainer"),
    *("Evaluator", "Report", "Pusher"),
)


def damaged_versions(serving):
    """What is wrong with the versions that a server would take, if anything."""
    for version in serving.glob("[0-9]*"):
        try:
            check_whole(str(version))
        except UserError as error:
            yield str(error)


class Watch(threading.Thread):
    """Looks all the time whether there is a whole model in `serving`, and only whole ones."""

    def __init__(self, serving, is_there):
        super().__init__(daemon=True)
        self.serving, self.is_there = serving, is_there
        self.harm, self.looks, self.stopped = "", 0, False

    def run(self):
        while not self.stopped:
            self.looks += 1
            self.harm = self.harm or "".join(damaged_versions(self.serving))
            if self.is_there and not list(self.serving.glob("[0-9]*")):
                self.harm = "There was no model."
            time.sleep(0.005)


@pytest.mark.reliability
@pytest.mark.parametrize(("component", "trial"), [*((c, 0) for c in COMPONENTS), ("Trainer", 1)])
def test_a_killed_run_is_completed_with_the_same_result(
    component, trial, capsad, reference, survived
):
    """The kill comes at a random time within the component."""
    command, auroc = reference
    # An earlier model is served meanwhile.
    shutil.copytree(command.serving, capsad.serving)
    watch = Watch(capsad.serving, is_there=True)
    watch.start()
    process = capsad.start(*capsad.RUN)
    log = capsad.folder / "out" / "log.txt"
    deadline = time.monotonic() + 120
    while not log.exists() or f"Component {component} is running" not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    longest = {"Trainer": 5.0, "StatisticsGen": 2.0, "Evaluator": 2.0, "Report": 2.0}
    pause = random.Random(f"{component} {trial}").uniform(0, longest.get(component, 0.05))
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = capsad.run()
    watch.stopped = True
    watch.join()
    assert watch.looks > 100
    harm = watch.harm or ("" if again == auroc else f"{again} instead of {auroc}")
    left = [path.name for path in capsad.serving.iterdir() if not path.name.isdecimal()]
    survived("kill -9 in a component, then the same command", harm or "".join(left))


@pytest.mark.reliability
def test_two_runs_on_one_output(capsad, reference, survived):
    _, auroc = reference
    first, second = capsad.start(*capsad.RUN), capsad.start(*capsad.RUN)
    outputs = [process.communicate(timeout=300)[0] for process in (first, second)]
    codes = [first.returncode, second.returncode]
    harm = "" if sorted(codes) == [0, 2] else f"exit codes {codes}: {outputs}"
    if not harm:
        refused = outputs[codes.index(2)]
        harm = "" if is_one_sentence(2, refused) and "Another run" in refused else refused
    if not harm and capsad.run() != auroc:
        harm = "another result"
    survived("two runs at once on one output folder", harm)


@pytest.mark.reliability
@pytest.mark.parametrize("kilobytes", [40, 400, 1300])
def test_a_full_disk(kilobytes, tmp_path, reference, survived):
    _, auroc = reference
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size, *more):
        options = ",".join([f"size={size}k", *more])
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True
        )

    if mount(kilobytes).returncode:
        pytest.skip("A disk of a given size cannot be mounted here.")
    try:
        capsad = Capsad(disk)
        code, said = capsad(*capsad.RUN)
        harm = ""
        if code == 0:
            harm = "" if kilobytes > 1000 else "The disk was not full."
        elif not (is_one_sentence(code, said) and "isk is full" in said):
            harm = said[-800:]
        harm = harm or "".join(damaged_versions(capsad.serving))
        mount(100_000, "remount")
        if not harm:
            again = capsad.run()
            harm = "" if again == auroc else f"{again} instead of {auroc}"
        survived("disk full at some point of a run, then room and the same command", harm)
    finally:
        subprocess.run(["umount", disk], check=True)
