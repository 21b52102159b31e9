import json
import tomllib
from pathlib import Path

import pytest

import capsad
from models import detectors

ROOT = Path(__file__).parents[2]
_IMPORT = """
import json, sys, time
started = time.perf_counter()
import capsad
seconds = time.perf_counter() - started
heavy = ("keras", "tensorflow", "sklearn", "numpy", "pandas", "models", "components")
print(json.dumps([seconds, [name for name in heavy if name in sys.modules], dir(capsad)]))
"""


def test_the_import_is_quick_because_nothing_else_is_imported(fresh_python):
    seconds, heavy, names = json.loads(fresh_python(_IMPORT, ours=True))
    assert heavy == []
    assert seconds < 0.2
    assert {*capsad.__all__, "__version__"} <= set(names)


def test_names_of_detectors_need_no_keras(fresh_python):
    code = "import sys, capsad; print(*capsad.detectors(), 'keras' in sys.modules)"
    assert fresh_python(code, ours=True).split() == [*detectors.names(), "False"]


def test_every_public_name_is_there_and_explained():
    for name in capsad.__all__:
        assert getattr(capsad, name).__doc__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert capsad.__version__ == project["version"]


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="module 'capsad' has no attribute 'train'"):
        _ = capsad.train
