"""TFMA's Evaluator, whose blessing is our verdict."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import tensorflow_model_analysis as tfma
from tfx.components.evaluator import constants, executor
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import Artifact, BaseChannel, Channel, artifact_utils, standard_artifacts
from tfx.types import standard_component_specs as specs
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import json_utils, path_utils

from components.data.examples import SEEN_FILE, load_digests
from components.evaluation.eval_config import CLASSES
from components.evaluation.metrics import AUROC, OVERALL, load_measures
from components.evaluation.verdict import FILE, Gate, judge
from components.serving.sums import check_whole
from models.errors import UserError
from models.score_names import ANOMALY_SCORE

_MODEL_RUN, _GATE = "model_run", "gate"


class EvaluatorSpec(specs.EvaluatorSpec):
    """The stock specification, with the training's record and the gates."""

    INPUTS = {
        **specs.EvaluatorSpec.INPUTS,
        _MODEL_RUN: ChannelParameter(type=standard_artifacts.ModelRun),
    }
    PARAMETERS = {**specs.EvaluatorSpec.PARAMETERS, _GATE: ExecutionParameter(type=str)}


class Executor(executor.Executor):
    """Measures as the stock executor does, and then judges.

    The verdict is written into the evaluation, and the model is blessed if the verdict says so.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Measures the model and its baseline, judges, and blesses."""
        exec_properties = dict(exec_properties)
        gate = Gate(**json.loads(exec_properties.pop(_GATE)))
        inputs = dict(input_dict)
        (run,) = inputs.pop(_MODEL_RUN)
        without = _without_baseline(inputs)
        if without:
            inputs[specs.BASELINE_MODEL_KEY] = []
        super().Do(inputs, output_dict, exec_properties)

        uri = artifact_utils.get_single_uri(output_dict[specs.EVALUATION_KEY])
        measured = load_measures(uri)[OVERALL]
        baseline: float | str = without
        if not without:
            former = load_measures(uri, tfma.constants.BASELINE_KEY)[OVERALL]
            baseline = former[ANOMALY_SCORE][AUROC]
        training = json.loads(Path(run.uri, "history.json").read_text())
        verdict = judge(measured[ANOMALY_SCORE], measured[CLASSES], training, baseline, gate)
        with fileio.open(os.path.join(uri, FILE), "w") as file:
            file.write(json.dumps(dataclasses.asdict(verdict), indent=2))
        _bless(verdict.blessed, inputs, output_dict)


class Evaluator(base_beam_component.BaseBeamComponent):
    """Measures a model on the split `test`, and blesses it if it passes all gates.

    Args:
        examples: examples with the split `test`.
        model: the model.
        model_run: what the Trainer recorded.
        baseline_model: the last blessed model, if one is looked up.
        eval_config: what is measured.
        gate: what the model must reach.
    """

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        model: BaseChannel,
        model_run: BaseChannel,
        baseline_model: BaseChannel | None,
        eval_config: tfma.EvalConfig,
        gate: Gate,
    ):
        super().__init__(
            EvaluatorSpec(
                examples=examples,
                model=model,
                model_run=model_run,
                baseline_model=baseline_model,
                eval_config=eval_config,
                example_splits=json_utils.dumps(["test"]),
                gate=json.dumps(dataclasses.asdict(gate)),
                evaluation=Channel(type=standard_artifacts.ModelEvaluation),
                blessing=Channel(type=standard_artifacts.ModelBlessing),
            )
        )


def _without_baseline(inputs: dict[str, list[Artifact]]) -> str:
    """Why the last blessed model is not compared; empty if it is."""
    former = inputs.get(specs.BASELINE_MODEL_KEY)
    if not former:
        return "there is no earlier blessed model"
    try:
        check_whole(path_utils.serving_model_path(former[0].uri))
    except UserError:
        return "the last blessed model is damaged or gone, so it was not compared"
    try:
        own, seen = (
            json.loads(Path(model.uri, SEEN_FILE).read_text())
            for model in (inputs[specs.MODEL_KEY][0], former[0])
        )
    except (OSError, ValueError):
        return "the last blessed model does not tell what it was trained on, so it was not compared"
    if set(seen["anomaly"]) != set(own["anomaly"]):
        return (
            f"the last blessed model has another anomaly ({', '.join(seen['anomaly'])}), so it was "
            "not compared"
        )
    tested = load_digests(inputs[specs.EXAMPLES_KEY][0].uri, "test")
    known = sum(map(set(seen["images"]).__contains__, tested))
    if known:
        return (
            f"the last blessed model has seen {known} of the {len(tested)} test images, so it was "
            "not compared"
        )
    return ""


def _bless(
    blessed: bool, inputs: dict[str, list[Artifact]], outputs: dict[str, list[Artifact]]
) -> None:
    """Writes the blessing as the stock executor does where it has thresholds."""
    blessing = artifact_utils.get_single_instance(outputs[specs.BLESSING_KEY])
    for model, uri_key, id_key in (
        (
            specs.MODEL_KEY,
            constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY,
            constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY,
        ),
        (
            specs.BASELINE_MODEL_KEY,
            constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY,
            constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY,
        ),
    ):
        for artifact in inputs.get(model) or ():
            blessing.set_string_custom_property(uri_key, artifact.uri)
            blessing.set_int_custom_property(id_key, artifact.id)
    name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    with fileio.open(os.path.join(blessing.uri, name), "w") as file:
        file.write("")
    blessing.set_int_custom_property(
        constants.ARTIFACT_PROPERTY_BLESSED_KEY,
        constants.BLESSED_VALUE if blessed else constants.NOT_BLESSED_VALUE,
    )
