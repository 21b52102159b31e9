"""Measures a run of the pipeline as a user sees it: start-up, time a component, memory.

    python benchmarks/whole_run.py digits
    python benchmarks/whole_run.py mnist --anomaly 9 --epochs 1 --data-dir FOLDER

Arguments are those of `capsad run`. Prints a table and, last, one line of JSON; `--save` writes
the table to docs/results/whole-run-NAME.md.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.machine import describe

CAPSAD = (sys.executable, "-c", "from pipeline.cli import main; main()")


def main() -> None:
    """Runs once in an empty folder, once more from the cache."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--save"]
    with tempfile.TemporaryDirectory() as folder:
        command = [*CAPSAD, "run", *arguments, "--json", "--output", folder]
        first, output = timed(command)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        again, _ = timed(command)
        history = next(Path(folder).rglob("history.json"))
        training = json.loads(history.read_text())["seconds"]
    help_time = min(timed([*CAPSAD, "--help"])[0] for _ in range(5))
    result = json.loads(output)

    rows = [(name, took["seconds"]) for name, took in result["components"].items()]
    in_components = sum(seconds for _, seconds in rows)
    rows += [
        ("imports and the rest", first - in_components),
        ("**whole run**", first),
        ("of which training", training),
        ("of which everything else", first - training),
        ("the same again, from the cache", again),
        ("`capsad --help`", help_time),
    ]
    shown = " ".join("DIR" if "/" in argument else argument for argument in arguments)
    table = [
        f"# `capsad run {shown}`",
        "",
        "This was measured on " + describe().replace("; ", ", with\n") + ".",
        "",
        "| | seconds |",
        "|---|---:|",
        *(f"| {name} | {seconds:.1f} |" for name, seconds in rows),
        "",
        f"The largest resident set was {memory:.2f} GiB. The accuracy on normal classes was "
        f"{result['accuracy']:.4f}.",
        "The auROC was: "
        + ", ".join(f"{name} {value:.4f}" for name, value in result["auroc"].items())
        + ".",
    ]
    print("\n".join(table))
    if "--save" in sys.argv:
        target = Path(__file__).parents[1] / "docs" / "results" / f"whole-run-{arguments[0]}.md"
        target.write_text("\n".join(table) + "\n")
    print(
        json.dumps(
            {
                "seconds": round(first, 1),
                "without_training": round(first - training, 1),
                "cached": round(again, 1),
                "help": round(help_time, 3),
                "memory_gib": round(memory, 2),
            }
        )
    )


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds and output of a command."""
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    return time.monotonic() - started, done.stdout


if __name__ == "__main__":
    main()
