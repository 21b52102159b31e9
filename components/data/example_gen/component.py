"""The ExampleGen of the hold-out protocol."""

import os
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
        config: what `executor.Executor` is told, see there; JSON values only. TFX's own
            fingerprint, by number, size and times of files, is that of the file `held_out`, whose
            name follows from its content: the identity of the data is in `config` alone.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, config: dict[str, Any]):
        struct = struct_pb2.Struct()
        struct.update(config)
        packed = any_pb2.Any()
        packed.Pack(struct)
        folder, name = os.path.split(config["held_out"] or "")
        super().__init__(
            input_base=folder,
            input_config=example_gen_pb2.Input(
                splits=[example_gen_pb2.Input.Split(name="source", pattern=name or "none")]
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
