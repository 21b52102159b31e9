"""The first step of a run on Kubeflow Pipelines, which plans it where the data is.

It makes the pipeline as a local run does, and gives on those properties of the components that
depend on the data and on the parameters of the run. So the cache of each component sees exactly
what it sees in a local run, and also the code of the image.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from components.data.remote import local_copy
from models.errors import UserError
from models.files import write_whole
from pipeline import platforms
from pipeline.kubeflow.entrypoint import local_path
from pipeline.kubeflow.parameters import DATA_DIR, configure
from pipeline.plan import plan

PIPELINE = "pipeline"
"""Name of the parameter that holds the name of the pipeline."""
PLANNED = {
    "HoldOutExampleGen": ("custom_config",),
    "Trainer": ("custom_config",),
    "Evaluator": ("eval_config", "gate"),
    "Report": ("run",),
}
"""Component -> its properties that depend on the data or on the parameters."""


def output_name(component: str, name: str) -> str:
    """Name of the output that holds a property of a component."""
    return f"{component}_{name}"


def outputs(pipeline: str, texts: Mapping[str, str]) -> dict[str, str]:
    """Plans a run.

    Args:
        pipeline: name of the pipeline.
        texts: name of a parameter -> its text, see `parameters`.

    Returns:
        Name of each output -> its value.

    Raises:
        UserError: if the data is missing or damaged, or the parameters do not fit it.
    """
    # This takes many seconds to load, and wrong parameters are told without it.
    config = configure(pipeline, texts)
    from pipeline.pipeline import create_pipeline

    data_dir = texts.get(DATA_DIR) or None
    with local_copy(data_dir) as place:
        if config.data.source == "images":
            data = dataclasses.replace(config.data, images=place)
        else:
            data = dataclasses.replace(config.data, data_dir=place)
        planned = plan(dataclasses.replace(config, data=data))
        for line in (*planned.table.lines(), planned.choice, *planned.warnings):
            print(line, flush=True)  # for the log of the container
        made = create_pipeline(planned, platforms.kubeflow(config.name, data_dir))
    properties = {component.id: component.exec_properties for component in made.components}
    return {
        output_name(component, name): properties[component][name]
        for component, names in PLANNED.items()
        for name in names
    }


def main() -> None:
    """Plans the run that the ExecutorInput on the command line describes."""
    invocation = json.loads(sys.argv[1])
    texts = invocation["inputs"]["parameterValues"]
    try:
        planned = outputs(texts[PIPELINE], texts)
    except UserError as error:
        named = f" See the parameters {', '.join(error.settings)}." if error.settings else ""
        sys.exit(f"Error: {error}{named}")
    for name, output in invocation["outputs"]["parameters"].items():
        path = Path(local_path(output["outputFile"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, planned[name])


if __name__ == "__main__":
    main()
