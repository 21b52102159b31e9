"""Results of a benchmark in a file with a line of JSON each, so that it goes on after a kill."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rows:
    """The rows of the file `path`, which need not exist yet."""

    path: Path

    def read(self) -> list[dict[str, Any]]:
        """All rows, in the order in which they were added."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def has(self, job: dict[str, Any]) -> bool:
        """Whether there is a row with all values of `job`."""
        return any(all(row[key] == job[key] for key in job) for row in self.read())

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
