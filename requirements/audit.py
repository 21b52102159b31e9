"""Looks for known vulnerabilities of the locked versions that SECURITY.md does not list.

`make audit` runs it, with pip-audit on the PATH. It fails if there are such vulnerabilities, and
also if their database cannot be asked.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Prints what is new in each lock."""
    # In SECURITY.md, the rows of what is accepted begin with the identifier.
    pattern = re.compile(r"^\| ((?:CVE|GHSA|PYSEC)-\S+)", re.MULTILINE)
    listed = pattern.findall((ROOT / "SECURITY.md").read_text())
    # Without --strict, pip-audit finds nothing wrong with packages that it cannot ask about.
    command = ["pip-audit", "--strict", "--no-deps", "--disable-pip", "--format=json"]
    command += [word for identifier in listed for word in ("--ignore-vuln", identifier)]
    number = 0
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        answer = subprocess.run([*command, "-r", lock], capture_output=True, text=True, check=False)
        try:
            packages = json.loads(answer.stdout)["dependencies"]
        except ValueError:
            reason = answer.stderr.strip().rpartition("\n")[2]
            sys.exit(f"Error: The database of vulnerabilities cannot be asked: {reason}")
        for package in packages:
            for new in package["vulns"]:
                number += 1
                names = ", ".join([new["id"], *new["aliases"]])
                fixed = ", ".join(new["fix_versions"]) or "no version"
                print(f"{lock.name}: {package['name']} {package['version']}: {names}")
                print(f"    fixed in {fixed}")
    if number:
        sys.exit(f"Error: Known vulnerabilities that SECURITY.md does not list: {number}.")
    print("There are no known vulnerabilities, except those that SECURITY.md lists.")


if __name__ == "__main__":
    main()
