"""A Pusher that never shows a half-written model to the server."""

import os
from typing import Any

from google.protobuf import json_format
from tfx.components.pusher import component, executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import Artifact, artifact_utils

from components.serving import storage
from components.serving.sums import check_whole

_DESTINATION = "pushed_destination"


class AtomicExecutor(executor.Executor):
    """Copies the model under a name that no server takes for a version, and then renames it.

    A model that is not whole is not pushed.

    If the base directory is empty, the version's folder is put into the artifact itself. This is
    for orchestrators that keep only artifacts.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Lets the stock executor push into a temporary folder, and then renames the model."""
        destination = json_format.Parse(
            exec_properties["push_destination"], pusher_pb2.PushDestination()
        )
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        base = destination.filesystem.base_directory
        # The folder cannot be inside the artifact, because the stock executor empties the artifact
        # and then puts the model into it.
        folder = os.path.join(base, ".incoming") if base else f"{pushed.uri}.incoming"
        base = base or pushed.uri
        with storage.incoming(folder):
            destination.filesystem.base_directory = folder
            super().Do(
                input_dict,
                output_dict,
                {**exec_properties, "push_destination": json_format.MessageToJson(destination)},
            )
            # The folder does not exist if the model is not blessed.
            for version in fileio.listdir(folder) if fileio.exists(folder) else ():
                check_whole(os.path.join(folder, version))
                target = os.path.join(base, version)
                storage.publish(os.path.join(folder, version), target)
                pushed.set_string_custom_property(_DESTINATION, target)


class Pusher(component.Pusher):
    """The stock Pusher with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AtomicExecutor)
