"""Files of an output folder that are cut, changed, deleted or locked between two commands."""

import shutil
import sqlite3

import numpy as np
import pytest
from PIL import Image

from tests.damage import cut, flip
from tests.reliability.conftest import is_one_sentence

pytestmark = pytest.mark.reliability


def delete(path):
    path.unlink()


DAMAGES = {"cut": cut, "changed": flip, "deleted": delete}


@pytest.fixture
def output(reference):
    """The reference's output folder, which is put right again afterwards: its paths count."""
    command, _ = reference
    folder, kept = command.folder / "out", command.folder / "kept"
    shutil.copytree(folder, kept, symlinks=True)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_gives_no_score(damage, output, reference, survived):
    command, _ = reference
    Image.fromarray(np.full((8, 8), 99, "uint8")).save(command.folder / "image.png")
    (version,) = (output / "serving").iterdir()
    for path in sorted(path for path in version.rglob("*") if path.is_file()):
        content = path.read_bytes()
        DAMAGES[damage](path)
        code, said = command("score", "out", "image.png")
        harm = "" if is_one_sentence(code, said) and str(version.name) in said else said[-500:]
        survived(f"file of a pushed model {damage}, then score", harm)
        path.write_bytes(content)


ARTIFACTS = (
    "HoldOutExampleGen/examples/*/Split-train/*.gz",
    "HoldOutExampleGen/examples/*/Split-test/*.gz",
    "StatisticsGen/statistics/*/Split-train/FeatureStats.pb",
    "SchemaGen/schema/*/schema.pbtxt",
    "Trainer/model/*/Format-Serving/saved_model.pb",
    "Trainer/model_run/*/history.json",
    "Evaluator/evaluation/*/metrics-*",
    "Evaluator/evaluation/*/verdict.json",
    "Report/report/*/summary.json",
    "plan/*.npz",
)


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [(pattern, ("cut", "deleted")[place % 2]) for place, pattern in enumerate(ARTIFACTS)],
)
def test_a_run_makes_damaged_artifacts_again(pattern, damage, output, reference, survived):
    command, auroc = reference
    (path,) = (output / "pipeline").glob(pattern)
    DAMAGES[damage](path)
    code, said = command("report", "out")
    honest = is_one_sentence(code, said) or (code == 0 and "report.html" in said)
    harm = "" if honest else f"report: {said[-500:]}"
    if not harm:
        again = command.run()
        harm = "" if again == auroc else f"{again} instead of {auroc}"
    survived(f"artifact of a run {damage}, then report and run", harm)


def test_changed_records_are_named(output, reference, survived):
    command, auroc = reference
    (path,) = (output / "pipeline").glob("HoldOutExampleGen/examples/*/Split-train/*.gz")
    flip(path)
    # With another seed, so that the Trainer reads them.
    code, said = command(*command.RUN, "--seed", "1")
    harm = "" if is_one_sentence(code, said) and str(path) in said else said[-500:]
    if not harm:
        shutil.rmtree(path.parents[1])
        again = command.run()
        harm = "" if again == auroc else f"{again} instead of {auroc}"
    survived("records changed without a change of size, then run", harm)


@pytest.mark.parametrize("fault", ["cut", "deleted", "locked"])
def test_the_database(fault, output, reference, survived):
    command, auroc = reference
    path = output / "metadata.sqlite"
    holder = sqlite3.connect(path, isolation_level=None)
    if fault == "locked":
        holder.execute("BEGIN EXCLUSIVE")
    else:
        DAMAGES[fault](path)
    for arguments in (command.RUN, ("report", "out")):
        code, said = command(*arguments)
        survived(
            f"metadata.sqlite {fault}, then run and report",
            "" if is_one_sentence(code, said) else said[-500:],
        )
    holder.close()
    if fault != "locked":
        path.unlink(missing_ok=True)
        shutil.rmtree(output / "pipeline")
    again = command.run()
    survived(
        f"metadata.sqlite {fault}, then what the sentence says",
        "" if again == auroc else f"{again} instead of {auroc}",
    )


def test_a_moved_output_folder(output, reference, survived):
    command, _ = reference
    moved = output.rename(output.parent / "moved")
    code, said = command("report", "moved")
    gone = [] if code else [line for line in said.splitlines() if "gone" in line]
    harm = "" if code == 0 and "moved/serving" in said and not gone else said[-500:]
    moved.rename(output)
    survived("output folder moved, then report", harm)
