"""The pipeline: from a source's files to a blessed, pushed and explained detector."""

import dataclasses
import json
from collections.abc import Callable

import tensorflow_data_validation as tfdv
from tfx import components as tfx_components
from tfx.dsl.components.common import resolver
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import infra_validator_pb2, pusher_pb2, trainer_pb2
from tfx.types import Channel, standard_artifacts

from components import curated_schema, examples
from components.batch_scoring import inputs
from components.batch_scoring.component import BatchScorer
from components.beam_args import beam_args
from components.data_gate import DataGate
from components.evaluator.baseline import LatestOtherBlessedModelStrategy
from components.evaluator.eval_config import eval_config
from components.example_gen.component import HoldOutExampleGen
from components.pusher import Pusher
from components.report.component import Report
from models.scores import ANOMALY_SCORE
from pipeline import platforms
from pipeline.configs import PipelineConfig
from pipeline.digest import code_digest
from pipeline.preflight import Plan, plan

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


def create_pipeline(
    config: PipelineConfig,
    platform_of: Callable[[PipelineConfig, Plan], platforms.Platform] = platforms.local,
) -> Pipeline:
    """The TFX pipeline of `config`.

    Args:
        config: what is run.
        platform_of: gives the place where it runs.

    Raises:
        UserError: if the data is missing or the configuration does not fit it.
    """
    planned = plan(config)
    platform = platform_of(config, planned)
    data, training = config.data, config.training
    detector = planned.detector
    # Not a part of the plan: it loads Keras, as this module has already.
    detector.check_image_size(data.image_size)

    example_gen = HoldOutExampleGen(
        platform.data_folder,
        planned.source.pattern,
        {
            "source": data.source,
            "data_dir": platform.data_dir,
            "fingerprint": platform.fingerprint,
            "source_options": dict(data.source_options),
            "anomaly": list(planned.anomaly),
            "hold_out": planned.hold_out,
            "max_unreadable": data.max_unreadable,
            "digest": code_digest(
                "components.sources", "components.example_gen", "components.examples"
            ),
        },
    )
    all_examples = example_gen.outputs["examples"]
    statistics_gen = tfx_components.StatisticsGen(
        examples=all_examples,
        stats_options=tfdv.StatsOptions(feature_allowlist=_DESCRIBED),
        # The schema is about what is trained on; each split costs seconds.
        exclude_splits=["test"],
    )
    # Curated, not inferred: a schema inferred from data with an anomaly would allow it.
    schema_gen = curated_schema.CuratedSchema(content=curated_schema.PATH.read_text()).with_id(
        "SchemaGen"
    )
    example_validator = tfx_components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )
    data_gate = DataGate(anomalies=example_validator.outputs["anomalies"])

    trainer = tfx_components.Trainer(
        run_fn="components.trainer.run_fn",
        examples=all_examples,
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        custom_config={
            "detector": training.detector,
            "settings": dict(training.settings),
            "image_size": list(data.image_size),
            "seed": config.seed,
            "strategy": training.strategy,
            "digest": code_digest(
                "models",
                "components.trainer",
                "components.cluster",
                "components.strategy",
                "components.serving",
                "components.examples",
            ),
        },
    )
    trainer.add_upstream_node(data_gate)
    trainer.with_platform_config(platform.trainer)
    model = trainer.outputs["model"]

    baseline = None
    if platform.has_resolvers:
        baseline = resolver.Resolver(
            strategy_class=LatestOtherBlessedModelStrategy,
            candidate=model,
            model=Channel(type=standard_artifacts.Model),
            model_blessing=Channel(type=standard_artifacts.ModelBlessing),
        ).with_id("Baseline")
    evaluator = tfx_components.Evaluator(
        examples=all_examples,
        example_splits=["test"],
        model=model,
        baseline_model=baseline.outputs["model"] if baseline else None,
        eval_config=eval_config(
            [*detector.scores, ANOMALY_SCORE],
            config.gate.min_auroc,
            config.gate.max_auroc_drop,
            code_digest("components.evaluator", "models.metrics", "models.scores"),
        ),
    )
    infra_validator = None
    if config.gate.infra_validation:
        infra_validator = _infra_validator(model, all_examples)
        infra_validator.add_upstream_node(evaluator)
    pusher = Pusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=infra_validator.outputs["blessing"] if infra_validator else None,
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=platform.serving)
        ),
    )
    report = Report(
        examples=all_examples,
        statistics=statistics_gen.outputs["statistics"],
        model=model,
        model_run=trainer.outputs["model_run"],
        evaluation=evaluator.outputs["evaluation"],
        blessing=evaluator.outputs["blessing"],
        run=json.dumps(
            {
                "name": config.name,
                "source": f"{planned.source.title} ({planned.source.origin})",
                "normal_classes": planned.normal_classes,
                "anomaly_classes": planned.anomaly_classes,
                "image_size": data.image_size,
                "detector": training.detector,
                "seed": config.seed,
                "config": _described(config, detector),
                "gate": dataclasses.asdict(config.gate),
                "digest": code_digest("components.report", "models.metrics"),
            }
        ),
    )
    batch_scorers = []
    if config.score_images:
        images = inputs.resolve(config.score_images)
        batch_scorers = [
            BatchScorer(
                model=model,
                blessing=evaluator.outputs["blessing"],
                images=images,
                fingerprint=inputs.fingerprint(images),
                digest=code_digest("components.batch_scoring"),
            )
        ]
    return Pipeline(
        pipeline_name=platform.pipeline_name,
        pipeline_root=platform.pipeline_root,
        components=[
            example_gen,
            statistics_gen,
            schema_gen,
            example_validator,
            data_gate,
            trainer,
            evaluator,
            *filter(None, [baseline, infra_validator]),
            pusher,
            report,
            *batch_scorers,
        ],
        enable_cache=True,
        metadata_connection_config=platform.metadata,
        beam_pipeline_args=beam_args(config.beam_args),
    )


def _infra_validator(model, all_examples) -> tfx_components.InfraValidator:
    """Loads the model into TensorFlow Serving and sends it a few images."""
    return tfx_components.InfraValidator(
        model=model,
        examples=all_examples,
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


def _described(config, detector) -> dict[str, object]:
    """The configuration as the report shows it: no folders of this machine, all settings."""
    described = dataclasses.asdict(config)
    for name in ("output", "score_images", "beam_args"):
        described.pop(name)
    described["data"].pop("data_dir")
    described["training"]["settings"] = {
        field.name: getattr(detector, field.name) for field in detector.settings()
    }
    return described
