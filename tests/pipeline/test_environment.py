"""The locks, the choice between them, and what README.md says."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline import stack
from pipeline.cli import doctor

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("tfx-*.txt"))
TORCH_LOCK = ROOT / "requirements/torch.txt"


@pytest.mark.parametrize("lock", [*LOCKS, TORCH_LOCK], ids=lambda path: path.stem)
def test_locks_hold_names_and_exact_versions_only(lock):
    lines = lock.read_text().splitlines()
    assert len(lines) > (20 if lock == TORCH_LOCK else 100)
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._\[\]-]+==[A-Za-z0-9.+!]+", line), line
    # Where kfp is installed, `tfx run create` without `--engine` takes Kubeflow.
    assert not any(line.startswith("kfp==") for line in lines)


def test_pytorch_is_tested_with_the_same_keras():
    keras = [line for line in LOCKS[0].read_text().splitlines() if line.startswith("keras==")]
    lines = TORCH_LOCK.read_text().splitlines()
    assert keras[0] in lines
    assert any(line.startswith("torch==") for line in lines)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_locks_hold_what_capsad_asks_for(lock):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = dict(line.split("==") for line in lock.read_text().splitlines())
    for line in project["dependencies"] + project["optional-dependencies"]["dev"]:
        asked = Requirement(line)
        assert asked.specifier.contains(pinned[asked.name.replace("_", "-")]), line


_READ_ARROW = """
import pickle, sys
import pyarrow as pa

class Attack:
    def __reduce__(self):
        return print, ("attacked",)

marks = {"ARROW:extension:name": "arrow.py_extension_type"}
marks["ARROW:extension:metadata"] = pickle.dumps(Attack())
schema = pa.schema([pa.field("x", pa.null(), metadata=marks)])
print("written")
pa.ipc.read_schema(schema.serialize())
print("read")
"""


def test_arrow_files_run_no_code():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _READ_ARROW], capture_output=True, text=True
    )
    assert done.stdout.split() == ["written", "read"], done.stderr


def test_the_doctor_expects_what_the_locks_install():
    assert {path.stem for path in LOCKS} == set(doctor._VERSIONS)
    for lock in LOCKS:
        pinned = dict(line.split("==") for line in lock.read_text().splitlines())
        for name, version in doctor._VERSIONS[lock.stem].items():
            assert pinned[name].startswith(f"{version}.")


@pytest.mark.parametrize(
    ("glibc", "python", "expected"),
    [("2.36", (3, 11), "tfx-1.16"), ("2.39", (3, 12), "tfx-1.21"), ("2.41", (3, 13), "tfx-1.21")],
)
def test_the_stack_is_chosen_by_glibc(glibc, python, expected, monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", glibc))
    monkeypatch.setattr(sys, "version_info", (*python, 0))
    assert stack.choose() == expected


@pytest.mark.parametrize(
    ("libc", "python", "message"),
    [
        (("glibc", "2.36"), (3, 12), "Python 3.11 is needed"),
        (("glibc", "2.41"), (3, 10), "Python 3.12 to 3.13 is needed"),
        (("", ""), (3, 11), "use a container"),
    ],
)
def test_unfit_machines_are_told_what_to_do(libc, python, message, monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(sys, "version_info", (*python, 0))
    with pytest.raises(RuntimeError, match=message):
        stack.choose()


def test_ci_runs_the_commands_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"^    (make [a-z-]+)", readme, re.MULTILINE))
    ci = set(re.findall(r"^(make [a-z-]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert commands == ci == {"make demo", "make test"}


def test_the_image_is_made_of_what_is_there_and_not_left_out():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copies = [line.split() for line in lines if line.startswith("COPY") and "--from" not in line]
    copied = {source for _, *sources, _ in copies for source in sources}
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")
    }
    assert {"models", "components", "pipeline", "capsad", "requirements"} <= copied
    for source in copied:
        assert (ROOT / source).exists(), source
    assert {source.split("/")[0] for source in copied} == allowed


def test_workers_and_job_servers_have_the_beam_of_the_locks():
    locks = {path.stem: path.read_text() for path in [*LOCKS, ROOT / "requirements/image.txt"]}
    beam = {
        name: re.search(r"^apache-beam==(.+)$", text, re.MULTILINE)[1]
        for name, text in locks.items()
    }
    assert (
        f"FROM apache/beam_python3.13_sdk:{beam['image']} AS beam\n"
        in (ROOT / "Dockerfile").read_text()
    )
    page = " ".join((ROOT / "docs/engines.md").read_text().split())
    assert beam["image"] == beam["tfx-1.21"]
    assert f"{beam['tfx-1.16']} with `requirements/tfx-1.16.txt`" in page
    assert f"{beam['tfx-1.21']} with `requirements/tfx-1.21.txt` and in the image" in page


def test_every_relative_link_of_a_document_leads_somewhere():
    files = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for file in files:
        for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / file).read_text()):
            target = link.partition("#")[0]
            if target and ":" not in target:
                assert ((ROOT / file).parent / target).exists(), f"{file}: {link}"


def test_no_folder_of_a_machine_and_no_registry_in_any_file():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for file in files:
        if file.endswith((".png", ".npz")) or file == "tests/pipeline/test_environment.py":
            continue
        text = (ROOT / file).read_text()
        assert not re.search(r"/home/|/root/|/work/|pypi\.org|index-url", text), file


def copy_of_the_project(folder):
    for package in ("models", "components", "pipeline"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )


_DIGESTS = """
from pipeline.digest import code_digest
for module in (
    "components.data.example_gen.component",
    "components.data.data_gate",
    "components.training.trainer",
    "components.evaluation.report.component",
    "components.serving.batch.component",
    "components.serving.pusher",
):
    print(module.split(".")[-2], code_digest(module))
"""
_READERS = {"example_gen", "training", "report", "batch"}


@pytest.mark.parametrize(
    ("changed", "components"),
    [
        ("models/errors.py", _READERS | {"data", "serving"}),
        ("components/data/protocol.py", _READERS),
        ("components/data/sources/stored_array.py", _READERS),  # four imports deep
        ("models/layers/squash.py", {"training", "report"}),
        ("models/detectors/geom.py", {"training"}),  # a registry names it, nobody imports it
        ("components/evaluation/report/report.html", {"report"}),
        ("components/serving/files.py", {"batch"}),
        ("components/serving/storage.py", {"batch", "serving"}),
        ("pipeline/cli/run.py", set()),
    ],
)
def test_the_digest_of_a_component_sees_all_that_it_imports(changed, components, tmp_path):
    copy_of_the_project(tmp_path)
    before = digests(_DIGESTS, tmp_path)
    with (tmp_path / changed).open("a") as file:
        file.write("\n# another line\n")
    after = digests(_DIGESTS, tmp_path)
    assert {name for name in before if before[name] != after[name]} == components


_OWN_DIGESTS = """
from pipeline.digest import own_digest
for name in ("capsnet", "vae", "geom"):
    print(name, own_digest(f"models.detectors.{name}"))
"""


@pytest.mark.parametrize(
    ("changed", "line", "detectors"),
    [
        ("models/layers/squash.py", "EPSILON = 1\n", {"capsnet", "vae"}),
        ("models/layers/primary_capsules.py", "KERNEL = 1\n", {"capsnet"}),
        ("models/vae.py", "LATENT = 1\n", {"vae"}),
        ("models/detectors/geom.py", "TURNS = 1\n", {"geom"}),
        ("models/detectors/network.py", "RATE = 1\n", {"capsnet", "vae", "geom"}),
        ("models/detectors/network.py", "# a comment\n", set()),
        ("models/detectors/__init__.py", "OTHERS = 1\n", set()),
        ("models/layers/__init__.py", "from models.layers.squash import squash as other\n", set()),
    ],
)
def test_the_own_digest_sees_what_a_detector_uses_and_no_more(changed, line, detectors, tmp_path):
    copy_of_the_project(tmp_path)
    before = digests(_OWN_DIGESTS, tmp_path)
    with (tmp_path / changed).open("a") as file:
        file.write(line)
    after = digests(_OWN_DIGESTS, tmp_path)
    assert {name for name in before if before[name] != after[name]} == detectors


def test_the_own_digest_does_not_see_docstrings(tmp_path):
    copy_of_the_project(tmp_path)
    before = digests(_OWN_DIGESTS, tmp_path)
    file = tmp_path / "models" / "vae.py"
    text = file.read_text()
    assert '"""Returns' in text
    file.write_text(text.replace('"""Returns', '"""Gives'))
    assert digests(_OWN_DIGESTS, tmp_path) == before


def digests(script, folder):
    lines = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return dict(line.split() for line in lines)
