"""What Beam sends to remote workers, and what a wheel holds."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_setup_py_packs_all_code_and_the_files_beside_it(tmp_path):
    for name in ("models", "components", "pipeline", "capsad"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "sdist"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    needed = {
        str(path.relative_to(ROOT))
        for package in ("models", "components", "pipeline", "capsad")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".html", ".pbtxt", ".typed")
    }
    assert needed <= names, needed - names
