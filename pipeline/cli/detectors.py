"""The command `capsad detectors`."""

import click

from models import detectors as registry
from pipeline.cli.options import Command


@click.command(cls=Command)
@click.option("--markdown", is_flag=True, help="Print the table of README.md.")
def detectors(markdown: bool) -> None:
    """List the detectors with their settings and defaults."""
    if markdown:
        click.echo("| detector | method | scores | source |\n|---|---|---|---|")
    for name in registry.names():
        detector = registry.describe(name)
        if markdown:
            scores = ", ".join(f"`{score}`" for score in detector.scores)
            link = f"[{name}](docs/detectors/{name}.md)"
            click.echo(f"| {link} | {detector.title} | {scores} | {detector.reference} |")
            continue
        click.secho(name, bold=True, nl=False)
        click.echo(f"  {detector.title}; scores {', '.join(detector.scores)}; {detector.reference}")
        for field in detector.settings():
            described = field.metadata["description"]
            click.echo(f"  {field.name} = {field.default}".ljust(38) + described)
