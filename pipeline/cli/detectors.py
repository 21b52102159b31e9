"""The command `capsad detectors`."""

from typing import Any

import click

from models import detectors as registry
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command


@click.command(cls=Command)
@json_option
@click.option("--markdown", is_flag=True, help="Print the table of docs/choosing.md.")
def detectors(as_json: bool, markdown: bool) -> None:
    """List the detectors with their settings and defaults."""
    if as_json:
        print_json("detectors", detectors=[_describe(name) for name in registry.names()])
        return
    if markdown:
        click.echo("| detector | method | scores | source |\n|---|---|---|---|")
    for name in registry.names():
        detector = registry.describe(name)
        if markdown:
            scores = ", ".join(f"`{score}`" for score in detector.scores)
            link = f"[{name}](detectors/{name}.md)"
            click.echo(f"| {link} | {detector.title} | {scores} | {detector.reference} |")
            continue
        click.secho(name, bold=True, nl=False)
        click.echo(f"  {detector.title}; scores {', '.join(detector.scores)}; {detector.reference}")
        for field in detector.settings():
            described = field.metadata["description"]
            click.echo(f"  {field.name} = {field.default}".ljust(38) + described)


def _describe(name: str) -> dict[str, Any]:
    detector = registry.describe(name)
    return {
        "name": name,
        "title": detector.title,
        "scores": detector.scores,
        "reference": detector.reference,
        "settings": [
            {
                "name": field.name,
                "default": field.default,
                "description": field.metadata["description"],
            }
            for field in detector.settings()
        ],
    }
