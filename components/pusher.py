"""A Pusher that never shows a half-written model to the server."""

import os

from google.protobuf import json_format
from tfx.components.pusher import component, executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils

_DESTINATION = "pushed_destination"


class AtomicExecutor(executor.Executor):
    """Copies the model under a name that no server takes for a version, then renames it.

    With an empty base directory the artifact is the destination: a folder with a folder of that
    version, for orchestrators that keep artifacts and nothing else.
    """

    def Do(self, input_dict, output_dict, exec_properties) -> None:  # noqa: N802
        """Pushes as the stock executor, into `.incoming`, then renames."""
        destination = json_format.Parse(
            exec_properties["push_destination"], pusher_pb2.PushDestination()
        )
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        base = destination.filesystem.base_directory
        # Beside the artifact, for the stock executor clears that and archives the model in it.
        incoming = os.path.join(base, ".incoming") if base else f"{pushed.uri}.incoming"
        base = base or pushed.uri
        if fileio.exists(incoming):  # left by a run that was killed
            fileio.rmtree(incoming)
        destination.filesystem.base_directory = incoming
        super().Do(
            input_dict,
            output_dict,
            {**exec_properties, "push_destination": json_format.MessageToJson(destination)},
        )
        if not fileio.exists(incoming):  # not blessed, so not pushed
            return
        (version,) = fileio.listdir(incoming)
        fileio.rename(os.path.join(incoming, version), os.path.join(base, version))
        fileio.rmtree(incoming)
        pushed.set_string_custom_property(_DESTINATION, os.path.join(base, version))


class Pusher(component.Pusher):
    """The stock Pusher with that executor."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AtomicExecutor)
