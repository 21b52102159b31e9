"""Compiles a pipeline for Kubeflow Pipelines and submits it.

It is also the file for the TFX command, where that compiles for Vertex AI:

    tfx pipeline create --engine vertex --pipeline_path pipeline/kubeflow_v2_runner.py

The variable CAPSAD_PIPELINE chooses the pipeline, and other CAPSAD_* variables set its knobs.

This needs kfp, which must not be in the environment of the local runner. Therefore kfp is imported
only in the functions that need it.
"""

import datetime
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # TFX executes this file by its path. Python then looks for modules in its folder first, where
    # pipeline.py would hide the package of the same name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

# ruff: noqa: E402
import yaml

from models.errors import UserError
from models.files import publish
from pipeline import configs, platforms
from pipeline.configs import KubeflowConfig
from pipeline.kubeflow import specification
from pipeline.kubeflow.parameters import configure, environment
from pipeline.plan import plan

COMMAND = ("python", "-m", "pipeline.kubeflow.entrypoint")


@dataclass(frozen=True, kw_only=True)
class Submission:
    """How a specification is run."""

    host: str
    """Address of Kubeflow Pipelines."""
    experiment: str = "Default"
    """Name of the experiment that the run belongs to. It is made if it is not there."""
    namespace: str | None = None
    """Namespace of the run. It must be `None` if Kubeflow has only one user."""
    pipeline_root: str | None = None
    """URI of the folder for the artifacts. `None` means the cluster's own folder."""
    service_account: str | None = None
    """Service account of the containers. `None` means the cluster's own."""
    use_cache: bool = True
    """Whether components may take their results from the cache."""
    cron: str | None = None
    """When a recurring run starts, as six fields. `None` means one run, now."""


def compile_pipeline(
    name: str,
    texts: Mapping[str, str],
    kubeflow: KubeflowConfig,
    path: str,
    *,
    beam_args: tuple[str, ...] = (),
) -> None:
    """Writes the specification of a pipeline (schema 2.1, YAML) to `path`.

    The TFX command chooses another file, and JSON for Vertex AI.

    Args:
        name: name of the pipeline.
        texts: name of a runtime parameter -> its default, see `pipeline.kubeflow.parameters`.
        kubeflow: how it runs.
        path: path of the file.
        beam_args: arguments of Apache Beam.

    Raises:
        UserError: if kfp is missing, if a parameter is out of range, if `path` cannot be written,
            or if Vertex AI has not what is asked for.
    """
    _require_kfp()
    config = configure(name, texts)
    # TFX is imported here, because the import takes seconds.
    from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
        KubeflowV2DagRunner,
        KubeflowV2DagRunnerConfig,
    )

    from pipeline.pipeline import create_pipeline

    # All that depends on the data comes from the step Plan when the pipeline runs. So any data
    # will do here, and that of the digits is on every machine.
    any_data = plan(configs.override(configs.get("digits"), beam_args=beam_args))
    pipeline = create_pipeline(any_data, platforms.kubeflow(config.name))
    runner_config = KubeflowV2DagRunnerConfig(
        default_image=kubeflow.image,
        default_commands=list(COMMAND),
        use_pipeline_spec_2_1=True,  # The open-source backend reads only this version.
    )
    target = Path(path).absolute()
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            runner = KubeflowV2DagRunner(runner_config, folder, "pipeline.yaml")
            runner.run(pipeline)
            # The TFX command changes the place of the file, and the image if it builds one.
            file = Path(runner._output_dir, runner._output_filename)
            written = yaml.safe_load(file.read_text())
            compiled = written.get("pipelineSpec", written)
            specification.add_plan(compiled, config.name, texts, runner_config.default_image)
            specification.set_containers(compiled, kubeflow.containers)
            of_kubernetes = specification.platforms(compiled, kubeflow.containers)
            if file.parent == Path(folder):
                file.write_text(yaml.safe_dump_all(filter(None, [compiled, of_kubernetes])))
                publish(file, target)
            elif of_kubernetes:
                file.unlink()
                raise UserError(
                    "Vertex AI has no volumes, secrets and tolerations of Kubernetes: leave them "
                    "out.",
                    *("volumes", "secrets", "tolerations"),
                )
            else:
                file.write_text(json.dumps(written, indent=2))
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error


def submit(path: str, texts: Mapping[str, str], submission: Submission) -> str:
    """Starts a run of the specification in `path`, or makes a recurring run.

    Args:
        path: path of the specification.
        texts: name of a runtime parameter -> its text, where it is not the compiled default.
        submission: how it is run.

    Returns:
        Address of the run.

    Raises:
        UserError: if kfp is missing, if `path` is no specification of ours, if a parameter is out
            of range, or if Kubeflow does not accept the run.
    """
    _require_kfp()
    import kfp
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    arguments: dict[str, Any] = {
        "job_name": _run_name(path, texts),
        "pipeline_package_path": path,
        "params": dict(texts),
        "pipeline_root": submission.pipeline_root,
        "service_account": submission.service_account,
        # True would turn it on for the step Plan, too.
        "enable_caching": None if submission.use_cache else False,
    }
    host = submission.host
    try:
        client = kfp.Client(host=host)
        experiment = client.create_experiment(
            submission.experiment, namespace=submission.namespace
        ).experiment_id
        if submission.cron:
            made = client.create_recurring_run(
                experiment, cron_expression=submission.cron, no_catchup=True, **arguments
            )
            page = f"recurringrun/details/{made.recurring_run_id}"
        else:
            page = f"runs/details/{client.run_pipeline(experiment, **arguments).run_id}"
    except (ApiException, HTTPError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"Kubeflow at {host} did not accept the run: {reason}", "host") from error
    return f"{host.rstrip('/')}/#/{page}"


def _run_name(path: str, texts: Mapping[str, str]) -> str:
    """A name that tells runs apart, by pipeline, anomaly and time; checks the parameters."""
    try:
        with open(path) as file:
            pipeline, defaults = specification.parameters(next(yaml.safe_load_all(file)))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from error
    except (yaml.YAMLError, StopIteration, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a file that `capsad kubeflow compile` of this version wrote."
        ) from error
    if unknown := set(texts) - set(defaults):
        raise UserError(f"{path} has no parameter {', '.join(sorted(unknown))}.", *sorted(unknown))
    config = configure(pipeline, {**defaults, **texts})
    anomaly = f" anomaly {','.join(config.data.anomaly)}" if config.data.anomaly else ""
    return f"{config.name}{anomaly} {datetime.datetime.now():%Y-%m-%d %H:%M:%S}"


def _require_kfp() -> None:
    if importlib.util.find_spec("kfp") is None:
        raise UserError(
            "Kubeflow needs kfp, which is not installed: make a second environment and install "
            "'capsad[kubeflow]' there, see docs/kubeflow.md."
        )


def main() -> None:
    """Compiles the pipeline that the environment describes.

    Outside the TFX command the file NAME.yaml is written here.
    """
    try:
        name = configs.configure(os.environ.get("CAPSAD_PIPELINE")).name
        containers = configs.configure_kubeflow()
        beam_args = configs.from_environment(configs.PipelineConfig).get("beam_args", ())
        path = f"{name}.yaml"
        compile_pipeline(name, environment(), containers, path, beam_args=beam_args)
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
