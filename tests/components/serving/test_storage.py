import os
import platform
import subprocess
import sys

from components.serving.storage import own_name


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    target = str(tmp_path / "scores [1]")
    start = f"{target}.{platform.node()}-"
    left = f"{start}{dead.pid}.incoming"
    kept = [
        f"{start}{os.getppid()}.incoming",  # of a process that is alive
        f"{target}.other-host-{dead.pid}.incoming",
        f"{target}.incoming",
        f"{target}2.{platform.node()}-{dead.pid}.incoming",
    ]
    for folder in (left, *kept):
        os.makedirs(f"{folder}/scores")
    assert own_name(target) == f"{start}{os.getpid()}.incoming"
    assert sorted(os.listdir(tmp_path)) == sorted(map(os.path.basename, kept))


def test_a_name_in_an_object_store_is_new_each_time():
    assert own_name("s3://bucket/scores") != own_name("s3://bucket/scores")
