"""The command `capsad`. Each of its subcommands has its own file.

Keras and TFX take long to import, so they are imported only by the commands that need them.
"""

import os

import click

from pipeline.cli import (
    compare,
    datasets,
    detectors,
    doctor,
    inspect,
    kubeflow,
    recalibrate,
    report,
    run,
    score,
    study,
    tables,
    watch,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="capsad")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Image anomaly detection with capsule networks.

    From images of several normal classes to a calibrated detector for TF Serving:

        capsad run digits

        capsad run mnist --anomaly 9 --epochs 2

        capsad run --images FOLDER --anomaly broken
    """
    if os.environ.get("NO_COLOR"):  # see no-color.org; Rich looks at it by itself
        ctx.color = False


for _command in (
    *(inspect.inspect, run.run, report.report, compare.compare),
    *(score.score, watch.watch, recalibrate.recalibrate),
    *(study.study, tables.tables),
    *(datasets.datasets, detectors.detectors, doctor.doctor, kubeflow.kubeflow),
):
    main.add_command(_command)
