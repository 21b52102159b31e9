"""`make audit`, with a stand-in for pip-audit that knows three vulnerabilities."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SECURITY = """
Raised because of CVE-2026-3.

| | package |
|---|---|
| CVE-2026-1 | one |
| GHSA-aaaa-bbbb-2222 | two |

| package | because of |
|---|---|
| three | CVE-2026-3 |
"""
_PIP_AUDIT = """#!{python}
import json, sys
assert "--strict" in sys.argv
known = ["CVE-2026-1", "GHSA-aaaa-bbbb-2222", "CVE-2026-3"]
ignored = [value for name, value in zip(sys.argv, sys.argv[1:]) if name == "--ignore-vuln"]
vulns = [
    {{"id": name, "aliases": [], "fix_versions": ["2.0"]}} for name in known if name not in ignored
]
print(json.dumps({{"dependencies": [{{"name": "a", "version": "1.0", "vulns": vulns}}]}}))
sys.exit(bool(vulns))
"""


@pytest.fixture
def audit(tmp_path):
    """Runs the script on a copy with one lock, that text of SECURITY.md and that pip-audit."""

    def run(security, pip_audit=_PIP_AUDIT):
        (tmp_path / "requirements").mkdir()
        shutil.copy(ROOT / "requirements" / "audit.py", tmp_path / "requirements")
        (tmp_path / "requirements" / "lock.txt").write_text("a==1.0\n")
        (tmp_path / "SECURITY.md").write_text(security)
        tool = tmp_path / "pip-audit"
        tool.write_text(pip_audit.format(python=sys.executable))
        tool.chmod(0o755)
        return subprocess.run(
            [sys.executable, tmp_path / "requirements" / "audit.py"],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )

    return run


def test_what_security_md_does_not_accept_fails(audit):
    done = audit(_SECURITY)
    assert done.returncode == 1
    assert done.stdout == "lock.txt: a 1.0: CVE-2026-3\n    fixed in 2.0\n"
    assert done.stderr == "Error: Known vulnerabilities that SECURITY.md does not list: 1.\n"


def test_what_security_md_accepts_passes(audit):
    done = audit(_SECURITY.replace("| three | CVE-2026-3 |", "| CVE-2026-3 | three |"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("There are no known vulnerabilities")


def test_a_database_out_of_reach_is_no_success(audit):
    done = audit(_SECURITY, "#!/bin/sh\necho 'could not connect' >&2\nexit 1\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: The database of vulnerabilities cannot be asked: could not connect\n"
    )


def test_security_md_accepts_only_versions_of_the_locks():
    accepted = re.findall(
        r"^\| (?:CVE|GHSA|PYSEC)-\S+ \| (\S+) (\S+) in `(.+?)`",
        (ROOT / "SECURITY.md").read_text(),
        re.MULTILINE,
    )
    assert accepted
    for name, version, lock in accepted:
        lines = (ROOT / "requirements" / lock).read_text().splitlines()
        assert f"{name}=={version}" in lines
