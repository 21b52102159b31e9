"""Logs a run and its model to MLflow.

This needs mlflow or mlflow-skinny, which `make setup` installs. No pickle is involved: the model is
the pushed SavedModel, and `capsad.pyfunc` loads it.
"""

import importlib.metadata
import importlib.util
import json
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import UserError
from pipeline.results import Results

if TYPE_CHECKING:
    from mlflow import MlflowClient

_REPORT = "capsad.report"  # tag
_LONGEST = 500  # letters of a parameter


def check(uri: str) -> None:
    """Looks for MLflow and its server before anything runs.

    Args:
        uri: address of an MLflow server, or a folder.

    Raises:
        UserError: if there is none.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise UserError(
            "MLflow is not installed: run make setup, or install mlflow-skinny.", "mlflow_uri"
        )
    try:
        _client(uri).search_experiments(max_results=1)
    except Exception as error:  # whatever its many stores raise
        raise UserError(f"MLflow at {uri} cannot be used: {_short(error)}", "mlflow_uri") from error


def log(uri: str, experiment: str, run_name: str, result: Results) -> str:
    """Logs settings, measures, report and pushed model of a run, once.

    Args:
        uri: address of an MLflow server, or a folder.
        experiment: name of the experiment, which is made if it is not there.
        run_name: name of the run.
        result: the results.

    Returns:
        Id of the run in MLflow.

    Raises:
        UserError: if MLflow does not take it.
    """
    try:
        return _log(uri, experiment, run_name, result)
    except Exception as error:
        raise UserError(
            f"MLflow at {uri} did not take the run: {_short(error)} The run itself is finished; "
            "the same command logs it again.",
            "mlflow_uri",
        ) from error


def _log(uri: str, experiment: str, run_name: str, result: Results) -> str:
    client = _client(uri)
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec

    found = client.get_experiment_by_name(experiment)
    number = found.experiment_id if found else client.create_experiment(experiment)
    done = client.search_runs([number], f"tags.`{_REPORT}` = '{result.report}'")
    finished = [run.info.run_id for run in done if run.info.status == "FINISHED"]
    if finished:
        return finished[0]
    report = Path(result.report).parent
    summary = json.loads((report / "summary.json").read_text())
    mlflow.set_tracking_uri(uri)
    started = mlflow.start_run(experiment_id=number, run_name=run_name)
    with warnings.catch_warnings(), started as run:
        warnings.simplefilter("ignore")  # It asks for an example of the input.
        mlflow.set_tags({_REPORT: result.report, "capsad.verdict": result.verdict["headline"]})
        mlflow.log_params({key: value[:_LONGEST] for key, value in summary["settings"].items()})
        mlflow.log_metrics(_measures(result))
        for measure, values in summary["history"].items():
            for epoch, value in enumerate(values, start=1):
                mlflow.log_metric(measure, value, step=epoch)
        mlflow.log_artifacts(str(report), "report")
        if result.pushed:
            alpha = ParamSpec("alpha", DataType.double, 0.05)
            mlflow.pyfunc.log_model(
                name="model",
                signature=ModelSignature(params=ParamSchema([alpha])),
                loader_module="capsad.pyfunc",
                data_path=result.pushed,
                pip_requirements=[f"capsad=={importlib.metadata.version('capsad')}"],
            )
    return run.info.run_id


def _measures(result: Results) -> dict[str, float]:
    measures = {f"auroc_{score}": value for score, value in result.auroc.items()}
    if result.normal_classes > 1:
        measures["accuracy"] = result.accuracy
    if result.pixels:
        measures["auroc_pixels"], measures["pro"] = result.pixels["auroc"], result.pixels["pro"]
    return {**measures, "blessed": float(result.blessed)}


def _client(uri: str) -> "MlflowClient":
    # A dead server is told within seconds, nothing is sent to anybody else, and a folder is
    # what the user asked for.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def _short(error: Exception) -> str:
    """The first sentence of an error, with a full stop."""
    text: Any = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200].rstrip('.')}."
