"""The pipeline: from a source's files to a blessed, pushed and explained detector."""

import dataclasses
import json

import tensorflow_data_validation as tfdv
from tfx import components as tfx_components
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common import resolver
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import infra_validator_pb2, pusher_pb2, trainer_pb2
from tfx.types import Channel, standard_artifacts

from components.data import curated_schema, examples
from components.data.data_gate import DataGate
from components.data.example_gen.component import HoldOutExampleGen
from components.evaluation.baseline import LatestOtherBlessedModelStrategy
from components.evaluation.eval_config import eval_config
from components.evaluation.evaluator import Evaluator
from components.evaluation.report.component import Report
from components.evaluation.verdict import Gate
from components.serving.batch import inputs
from components.serving.batch.component import BatchScorer
from components.serving.pusher import Pusher
from models.score_names import ANOMALY_SCORE
from pipeline.beam_args import beam_args
from pipeline.configs import LEAST_AUROC
from pipeline.digest import code_digest, file_digest
from pipeline.plan import Plan
from pipeline.platforms import Platform

_TRAINER = "components.training.trainer"
# Encoded images and ids say nothing as statistics, and cost most.
_DESCRIBED = [
    examples.HEIGHT,
    examples.WIDTH,
    examples.CHANNELS,
    examples.LABEL,
    examples.TEXT,
    examples.IS_ANOMALY,
    examples.CONTRAST,
]


def create_pipeline(plan: Plan, platform: Platform) -> Pipeline:
    """The TFX pipeline of a plan.

    Args:
        plan: what is run.
        platform: where it runs.

    Raises:
        UserError: if the images do not suit the detector, or its weights cannot be had.
    """
    # Not a part of the plan, because these load Keras.
    plan.detector.check_image_size(plan.image_size)
    channels = plan.held_out.index.channels
    plan.detector.check_weights((*plan.image_size, channels))

    example_gen = _example_gen(plan, platform)
    statistics_gen = _statistics_gen(example_gen)
    schema_gen = _schema_gen()
    example_validator = _example_validator(statistics_gen, schema_gen)
    data_gate = _data_gate(example_validator)
    trainer = _trainer(plan, example_gen, data_gate)
    baseline = _baseline(trainer) if platform.has_resolvers else None
    evaluator = _evaluator(plan, example_gen, trainer, baseline)
    validated = plan.config.gate.infra_validation
    infra_validator = _infra_validator(example_gen, trainer, evaluator) if validated else None
    report = _report(plan, example_gen, statistics_gen, trainer, evaluator)
    pusher = _pusher(platform, trainer, evaluator, infra_validator)
    pusher.add_upstream_node(report)  # Nothing is pushed that cannot be explained.
    batch_scorer = _batch_scorer(plan, trainer, evaluator) if plan.config.score_images else None

    stages = (
        *(example_gen, statistics_gen, schema_gen, example_validator, data_gate),
        *(trainer, baseline, evaluator, infra_validator, report, pusher, batch_scorer),
    )
    return Pipeline(
        pipeline_name=platform.pipeline_name,
        pipeline_root=platform.pipeline_root,
        components=[stage for stage in stages if stage],
        enable_cache=True,
        metadata_connection_config=platform.metadata,
        beam_pipeline_args=beam_args(plan.config.beam_args),
    )


def _example_gen(plan: Plan, platform: Platform) -> BaseNode:
    """Reads the source and writes the four splits."""
    data = plan.config.data
    return HoldOutExampleGen(
        {
            "source": data.source_name,
            "data_dir": platform.data_dir,
            "source_options": plan.source_options,
            "image_size": list(plan.image_size),
            "anomaly": list(plan.classes.anomaly),
            "held_out": platform.held_out,
            "hold_out": plan.hold_out,
            "fingerprint": plan.held_out.index.fingerprint,
            "max_unreadable": data.max_unreadable,
            "unreadable": plan.unreadable,
            "digest": code_digest(HoldOutExampleGen.__module__),
        }
    )


def _statistics_gen(example_gen: BaseNode) -> BaseNode:
    """Describes what is trained on; each split costs seconds, so `test` is left out."""
    return tfx_components.StatisticsGen(
        examples=example_gen.outputs["examples"],
        stats_options=tfdv.StatsOptions(feature_allowlist=_DESCRIBED),
        exclude_splits=["test"],
    )


def _schema_gen() -> BaseNode:
    """Gives the curated schema: one inferred from data with an anomaly would allow it."""
    return curated_schema.CuratedSchema(
        content=curated_schema.PATH.read_text(),
        digest=code_digest(curated_schema.__name__),
    ).with_id("SchemaGen")


def _example_validator(statistics_gen: BaseNode, schema_gen: BaseNode) -> BaseNode:
    """Compares the statistics with the schema."""
    return tfx_components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )


def _data_gate(example_validator: BaseNode) -> BaseNode:
    """Stops the run where data and schema differ."""
    return DataGate(
        anomalies=example_validator.outputs["anomalies"],
        digest=code_digest("components.data.data_gate"),
    )


def _trainer(plan: Plan, example_gen: BaseNode, data_gate: BaseNode) -> BaseNode:
    """Fits, calibrates and exports the detector, but only on data that passed the gate."""
    training = plan.config.training
    trainer = tfx_components.Trainer(
        run_fn=f"{_TRAINER}.run_fn",
        examples=example_gen.outputs["examples"],
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        custom_config={
            "detector": training.detector,
            "settings": training.all_settings,
            "image_size": list(plan.image_size),
            "white": plan.held_out.index.white,
            "anomaly": list(plan.classes.anomaly_names),
            "seed": plan.config.seed,
            "strategy": training.strategy,
            "alpha": training.alpha,
            "serving_device": training.serving_device,
            "data": plan.held_out.index.fingerprint,
            "weights": file_digest(training.weights),
            "digest": code_digest(_TRAINER),
        },
    )
    trainer.add_upstream_node(data_gate)
    return trainer


def _baseline(trainer: BaseNode) -> BaseNode:
    """Looks up the last blessed model other than the new one."""
    return resolver.Resolver(
        strategy_class=LatestOtherBlessedModelStrategy,
        candidate=trainer.outputs["model"],
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
    ).with_id("Baseline")


def _evaluator(
    plan: Plan, example_gen: BaseNode, trainer: BaseNode, baseline: BaseNode | None
) -> BaseNode:
    """Measures the model and blesses it if it passes the gates."""
    given = plan.config.gate
    return Evaluator(
        examples=example_gen.outputs["examples"],
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        baseline_model=baseline.outputs["model"] if baseline else None,
        eval_config=eval_config(
            [*plan.detector.scores, ANOMALY_SCORE], code_digest(Evaluator.__module__)
        ),
        gate=Gate(
            min_auroc=LEAST_AUROC if given.min_auroc is None else given.min_auroc,
            is_stated=given.min_auroc is not None,
            max_auroc_drop=given.max_auroc_drop,
            tells_classes_apart=plan.detector.learns_classes and len(plan.classes.normal_names) > 1,
            compares=baseline is not None,
        ),
    )


def _infra_validator(example_gen: BaseNode, trainer: BaseNode, evaluator: BaseNode) -> BaseNode:
    """Loads the model into TensorFlow Serving and sends it a few images, after the Evaluator."""
    infra_validator = tfx_components.InfraValidator(
        model=trainer.outputs["model"],
        examples=example_gen.outputs["examples"],
        serving_spec=infra_validator_pb2.ServingSpec(
            tensorflow_serving=infra_validator_pb2.TensorFlowServing(tags=["latest"]),
            local_docker=infra_validator_pb2.LocalDockerConfig(),
            model_name="capsad",
        ),
        request_spec=infra_validator_pb2.RequestSpec(
            tensorflow_serving=infra_validator_pb2.TensorFlowServingRequestSpec(
                signature_names=["serving_default"]
            ),
            split_name="eval",
            num_examples=3,
        ),
    )
    infra_validator.add_upstream_node(evaluator)
    return infra_validator


def _pusher(
    platform: Platform, trainer: BaseNode, evaluator: BaseNode, infra_validator: BaseNode | None
) -> BaseNode:
    """Copies a blessed model to where it is served from."""
    return Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=infra_validator.outputs["blessing"] if infra_validator else None,
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=platform.serving)
        ),
        custom_config={"digest": code_digest(Pusher.__module__)},
    )


def _report(
    plan: Plan,
    example_gen: BaseNode,
    statistics_gen: BaseNode,
    trainer: BaseNode,
    evaluator: BaseNode,
) -> BaseNode:
    """Explains the run in one HTML file."""
    config = plan.config
    return Report(
        examples=example_gen.outputs["examples"],
        statistics=statistics_gen.outputs["statistics"],
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        evaluation=evaluator.outputs["evaluation"],
        run=json.dumps(
            {
                "name": config.name,
                "source": f"{plan.source.title} ({plan.source.origin})",
                "normal_classes": plan.classes.normal_names,
                "anomaly_classes": plan.classes.anomaly_names,
                "image_size": plan.image_size,
                "detector": config.training.detector,
                "seed": config.seed,
                "config": _described(plan),
                "data": {"left_out": plan.table.lines(), "warnings": plan.warnings},
                "digest": code_digest("components.evaluation.report.component"),
            }
        ),
    )


def _batch_scorer(plan: Plan, trainer: BaseNode, evaluator: BaseNode) -> BaseNode:
    """Scores unlabelled images with a blessed model."""
    images = inputs.resolve(str(plan.config.score_images))
    return BatchScorer(
        model=trainer.outputs["model"],
        blessing=evaluator.outputs["blessing"],
        images=images,
        max_pixels=plan.config.data.max_pixels,
        fingerprint=inputs.fingerprint(images),
        digest=code_digest("components.serving.batch.component"),
    )


def _described(plan: Plan) -> dict[str, object]:
    """The configuration as the report shows it: no folders of this machine, but all settings."""
    described = dataclasses.asdict(plan.config)
    for name in ("output", "score_images", "beam_args"):
        described.pop(name)
    for name in ("data_dir", "images"):
        described["data"].pop(name)
    for name in ("epochs", "batch_size", "weights"):
        described["training"].pop(name)
    described["training"]["settings"] = {
        field.name: getattr(plan.detector, field.name) for field in plan.detector.settings()
    }
    return described
