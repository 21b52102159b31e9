"""The command `capsad`.

Imports that take long (Keras, TFX) are deferred to the commands that need them.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import click

from models.errors import UserError
from pipeline import options
from pipeline.kubeflow_command import kubeflow
from pipeline.score_command import score
from pipeline.study_command import study


class Command(click.Group):
    """Turns a UserError into one line and exit code 2."""

    def invoke(self, context: click.Context) -> object:
        """Runs the command."""
        try:
            return super().invoke(context)
        except UserError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(2)


@click.group(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="capsad")
def main() -> None:
    """Image anomaly detection with capsule networks.

    From images of several normal classes to a calibrated detector for TF Serving:

        capsad run digits

        capsad run mnist --anomaly 9 --epochs 2

        capsad run --images FOLDER --anomaly broken
    """


@main.command()
@options.of_a_run
@click.option(
    "--infra-validation",
    is_flag=True,
    default=None,
    help="Push only what TensorFlow Serving, started by docker, loads and answers with.",
)
@click.option("--data-dir", metavar="DIR", help="Folder of the data set's files.")
@click.option(
    "--output", metavar="DIR", help="Folder for all that is written.  [runs/NAME-anomaly-A]"
)
@click.option(
    "--score-images",
    metavar="INPUT",
    help="Unlabelled images that a blessed model scores: a folder, a manifest or TFRecords.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON on the last line.")
def run(name, images, data_dir, as_json, **overrides) -> None:
    """Train, judge, bless and push a detector on the data set NAME.

    NAME is one of digits (the default), mnist, fashion_mnist, smallnorb and images. The same
    command again is answered from the cache; after a kill it goes on where it was. CAPSAD_*
    variables (such as CAPSAD_EPOCHS) stand for options that are not given.
    """
    if images is not None and data_dir is not None:
        raise UserError("Give either --images or --data-dir, not both.")
    from pipeline.run import RunFailed
    from pipeline.run import run as run_pipeline

    config = options.configure(name, images, data_dir=data_dir, **overrides)
    try:
        result, seconds = run_pipeline(config)
    except RunFailed as error:
        raise click.ClickException(str(error)) from error
    if result is None:
        click.echo(f"\n  trained along; the chief has the results ({seconds:.0f} s)")
        return
    _show(result, f"{seconds:.0f} s")
    if as_json:
        click.echo(
            json.dumps(
                {
                    "auroc": result.auroc,
                    "accuracy": result.accuracy,
                    "blessed": result.blessed,
                    "report": result.report,
                    "pushed": result.pushed,
                    "scores": result.scores,
                    "seconds": round(seconds, 1),
                }
            )
        )


main.add_command(kubeflow)
main.add_command(score)
main.add_command(study)


@main.command()
@click.argument("run", metavar="RUN")
def report(run) -> None:
    """Show the results of RUN, a run's output folder, and where its report lies."""
    from pipeline import results

    _show(results.read(os.path.abspath(run)), "report")


@main.command()
@click.option("--data-dir", metavar="DIR", help="Folder to look in first.")
def datasets(data_dir) -> None:
    """List the data sets: where each was found, images a class, licence, how to get it."""
    import numpy as np

    from components import sources

    if data_dir is not None:
        os.environ[sources.DATA_DIR_VARIABLE] = data_dir
    for name in sources.names():
        source_class = sources.describe(name)
        click.secho(f"{name}", bold=True, nl=False)
        click.echo(f"  {source_class.title}")
        found, why = None, "not found"
        try:
            found = sources.find(name)
        except UserError as error:
            why = str(error)
        if found:
            click.echo(f"  found:    {found.folder} ({found.origin})")
            for part, labels in found.labels().items():
                counts = np.bincount(labels, minlength=len(found.class_names))
                listed = zip(found.class_names, counts, strict=True)
                click.echo(f"  {part + ':':<10}" + ", ".join(f"{n} {c}" for n, c in listed))
        else:
            click.echo(f"  missing:  {why}")
            click.echo(f"  get it:   {source_class.how_to_get}")
        click.echo(f"  licence:  {source_class.licence}")


@main.command()
def doctor() -> None:
    """Check the installation and say what to do about what is missing."""
    from pipeline.doctor import examine

    worst = "ok"
    for check in examine():
        colour = {"ok": "green", "note": "yellow", "wrong": "red"}[check.state]
        click.secho(f"{check.state:<6}", fg=colour, nl=False)
        click.echo(f"{check.subject:<14} {check.found}")
        if check.remedy:
            click.echo(f"{'':<21}-> {check.remedy}")
        worst = "wrong" if "wrong" in (check.state, worst) else worst
    sys.exit(1 if worst == "wrong" else 0)


@main.command()
@click.option("--markdown", is_flag=True, help="The table of README.md.")
def detectors(markdown) -> None:
    """List the detectors with their settings and defaults."""
    from models import detectors as registry

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


def _show(result, heading) -> None:
    """Prints the auROC table, the verdict and where things lie."""
    click.echo(f"\n  {'score':<16}auROC")
    for name, value in result.auroc.items():
        click.echo(f"  {name:<16}{value:.4f}")
    click.echo(f"  accuracy on normal classes {result.accuracy:.4f}\n")
    for gate, outcome in result.gates:
        click.echo(f"  {gate}: {outcome}")
    click.echo(f"  blessed: {'yes' if result.blessed else 'no'} ({heading})")
    click.echo(f"  report:  {_relative(result.report)}")
    click.echo(f"  model:   {_relative(result.pushed) if result.pushed else 'not pushed'}")
    if result.scores:
        click.echo(f"  scores:  {_relative(result.scores)}")


def _relative(path: str) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return path
