"""Runs TFX's executors in the containers, on files of the container.

Before and after the command of a container, Kubeflow copies artifacts between the object store and
a path that follows from the URI. On Vertex AI, the bucket is mounted at this path. TFX's own entry
point does not know these paths. It also needs the type of each input artifact, which the
open-source backend leaves empty. The specification of the component, which is given on the command
line, has the types.
"""

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

from models.files import write_whole

# Scheme of a URI -> folder in the container, as in `LocalPathForURI` of Kubeflow's launcher.
_LOCAL = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}
_INVOCATION = "json_serialized_invocation_args"


def local_path(uri: str) -> str:
    """Returns the path in the container that stands for `uri`. A path stands for itself."""
    for scheme, root in _LOCAL.items():
        if uri.startswith(scheme):
            return root + uri.removeprefix(scheme)
    return uri


def localize(invocation: dict[str, Any], inputs_spec: dict[str, Any]) -> dict[str, str]:
    """Changes an ExecutorInput in place, so that TFX can run it.

    Args:
        invocation: the ExecutorInput, as JSON.
        inputs_spec: the ComponentInputsSpec of the component, as JSON.

    Returns:
        Local path -> URI, for all artifacts.
    """
    declared = inputs_spec.get("artifacts", {})
    for name, artifact in _artifacts(invocation.get("inputs", {})):
        if not any(artifact.get("type", {}).values()):
            artifact["type"] = declared[name]["artifactType"]
    uris = {}
    for side in ("inputs", "outputs"):
        for _, artifact in _artifacts(invocation.get(side, {})):
            uri = artifact["uri"]
            artifact["uri"] = local_path(uri)
            uris[artifact["uri"]] = uri
    outputs = invocation["outputs"]
    outputs["outputFile"] = local_path(outputs["outputFile"])
    return uris


def _artifacts(side: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, listed in side.get("artifacts", {}).items():
        for artifact in listed.get("artifacts", ()):
            yield name, artifact


def main() -> None:
    """Runs the executor that the command line names, and writes its output with URIs."""
    from tfx.orchestration.kubeflow.v2 import compiler_utils
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor as tfx_entrypoint

    # TFX looks for the class of our own artifact type in this dict.
    compiler_utils.TITLE_TO_CLASS_PATH["capsad.Report"] = (
        "components.evaluation.report.component.ReportArtifact"
    )
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("executor_class_path", "json_serialized_inputs_spec_args", _INVOCATION):
        parser.add_argument(f"--{name}", required=True)
    arguments, beam_arguments = parser.parse_known_args()
    invocation = json.loads(getattr(arguments, _INVOCATION))
    uris = localize(invocation, json.loads(arguments.json_serialized_inputs_spec_args))
    setattr(arguments, _INVOCATION, json.dumps(invocation))
    for _, artifact in _artifacts(invocation["outputs"]):
        os.makedirs(artifact["uri"], exist_ok=True)  # TFX's other runners do this, too.
    tfx_entrypoint.main((arguments, beam_arguments))

    output_file = invocation["outputs"]["outputFile"]
    with open(output_file) as file:
        output = file.read()
    for path, uri in uris.items():
        output = output.replace(path, uri)
    write_whole(output_file, output)


if __name__ == "__main__":
    main()
