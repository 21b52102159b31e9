import shutil
import subprocess

import numpy as np
import pytest

from components.serving import clients
from components.serving.runner import newest_version, output_kinds
from components.serving.sums import FILE, check_whole, write_sums
from models.errors import UserError

FILES = (
    "saved_model.pb",
    "fingerprint.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "assets.extra/tf_serving_warmup_requests",
    "assets.extra/model.keras",
    "assets.extra/export.json",
)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def model(pushed, tmp_path):
    return shutil.copytree(pushed.version, tmp_path / "serving" / "7")


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.unlink()])
@pytest.mark.parametrize("name", FILES)
def test_no_damaged_model_is_loaded(name, damage, model):
    damage(model / name)
    for use in (
        lambda: clients.local(str(model.parent)),
        lambda: output_kinds(newest_version(str(model.parent))),
    ):
        with pytest.raises(UserError, match="is damaged, because|holds no SavedModel") as raised:
            use()
        assert str(model) in str(raised.value)


def test_damaged_sums(model):
    flip(model / FILE)
    with pytest.raises(UserError, match="is damaged, because"):
        check_whole(str(model))
    (model / FILE).write_text("")
    with pytest.raises(UserError, match="is damaged, because"):
        check_whole(str(model))
    (model / FILE).unlink()
    with pytest.raises(UserError, match=f"has no {FILE}: give a whole one"):
        check_whole(str(model))


def test_a_damaged_newest_version_is_not_passed_over(model):
    shutil.copytree(model, model.parent / "8")
    (model.parent / "8" / "saved_model.pb").unlink()
    assert newest_version(str(model.parent)).endswith("/8")


def test_the_sums_are_those_of_a_standard_tool(model):
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", FILE], cwd=model, capture_output=True, text=True
    )
    assert checked.returncode == 0
    assert checked.stdout.count(": OK") == len(FILES)


def test_a_changed_model_needs_new_sums(model, toys, to_png):
    before = clients.local(str(model)).score([to_png(toys(1, 3, seed=0)[0][0])])
    flip(model / FILES[-1])
    write_sums(str(model))
    after = clients.local(str(model)).score([to_png(toys(1, 3, seed=0)[0][0])])
    np.testing.assert_array_equal(before["pp"], after["pp"])
