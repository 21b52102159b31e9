"""The ExampleGen of the hold-out protocol."""

from typing import Any

from google.protobuf import any_pb2, struct_pb2
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2

from components.data.example_gen.executor import Executor
from components.data.protocol import SPLITS


class HoldOutExampleGen(FileBasedExampleGen):
    """Reads a source and gives the splits `train`, `eval`, `calibration` and `test`.

    Args:
        folder: where the source's files lie.
        pattern: glob, relative to `folder`, of the files read. TFX takes their fingerprint, so
            that changed data is noticed.
        config: what `executor.Executor` is told, see there; JSON values only.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, folder: str, pattern: str, config: dict[str, Any]):
        struct = struct_pb2.Struct()
        struct.update(config)
        packed = any_pb2.Any()
        packed.Pack(struct)
        super().__init__(
            input_base=folder,
            input_config=example_gen_pb2.Input(
                splits=[example_gen_pb2.Input.Split(name="source", pattern=pattern)]
            ),
            output_config=example_gen_pb2.Output(
                split_config=example_gen_pb2.SplitConfig(
                    # Only the names count: the executor itself assigns images to splits.
                    splits=[
                        example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1)
                        for name in SPLITS
                    ]
                )
            ),
            custom_config=example_gen_pb2.CustomConfig(custom_config=packed),
        )
