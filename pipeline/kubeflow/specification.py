"""Completes what TFX compiles: the runtime parameters, the step Plan, and Kubernetes' part.

A specification is a dict in the form of pipeline_spec.proto, schema 2.1.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import UserError
from pipeline.configs import TOLERATION, Containers
from pipeline.kubeflow.parameters import PARAMETERS
from pipeline.kubeflow.plan_step import PIPELINE, PLANNED, output_name

PLAN = "Plan"
_TRAINER = "Trainer"
_COMMAND = ("python", "-m", "pipeline.kubeflow.plan_step")
_LABEL = "{}_executor"  # as TFX labels them


def add_plan(
    specification: dict[str, Any], pipeline: str, texts: Mapping[str, str], image: str
) -> None:
    """Adds the parameters and the step Plan, from which components get what depends on the run.

    Args:
        specification: the specification, which is changed.
        pipeline: name of the pipeline.
        texts: name of a parameter -> its default.
        image: image of the container.
    """
    specification["root"]["inputDefinitions"] = {
        "parameters": {
            name: {
                **_string(),
                "defaultValue": texts.get(name, ""),
                "description": knob.help,
                "isOptional": True,
            }
            for name, knob in PARAMETERS.items()
        }
    }
    planned = [(component, name) for component, names in PLANNED.items() for name in names]
    specification["components"][PLAN] = {
        "executorLabel": _LABEL.format(PLAN),
        "inputDefinitions": {"parameters": {name: _string() for name in (PIPELINE, *PARAMETERS)}},
        "outputDefinitions": {"parameters": {output_name(*of): _string() for of in planned}},
    }
    specification["deploymentSpec"]["executors"][_LABEL.format(PLAN)] = {
        "container": {"image": image, "command": list(_COMMAND), "args": ["{{$}}"]}
    }
    tasks = specification["root"]["dag"]["tasks"]
    tasks[PLAN] = {
        "taskInfo": {"name": PLAN},
        "componentRef": {"name": PLAN},
        "cachingOptions": {},  # It looks at the data in every run.
        "inputs": {
            "parameters": {
                PIPELINE: {"runtimeValue": {"constant": pipeline}},
                **{name: {"componentInputParameter": name} for name in PARAMETERS},
            }
        },
    }
    for component, name in planned:
        task = tasks[component]
        if PLAN not in task.setdefault("dependentTasks", []):
            task["dependentTasks"].append(PLAN)
        task["inputs"]["parameters"][name] = {
            "taskOutputParameter": {
                "producerTask": PLAN,
                "outputParameterKey": output_name(component, name),
            }
        }


def parameters(specification: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Name of the pipeline, and name of each parameter -> its default.

    Raises:
        KeyError: if `add_plan` has not completed the specification.
    """
    given = specification["root"]["dag"]["tasks"][PLAN]["inputs"]["parameters"]
    declared = specification["root"]["inputDefinitions"]["parameters"]
    defaults = {name: parameter["defaultValue"] for name, parameter in declared.items()}
    return given[PIPELINE]["runtimeValue"]["constant"], defaults


def set_containers(specification: dict[str, Any], containers: Containers) -> None:
    """Sets resources, variables and retries.

    Args:
        specification: the specification, which is changed.
        containers: what the containers get.

    Raises:
        UserError: if there is no component of a name.
    """
    components = set(specification["components"])
    for option in ("cpus", "memory_gb"):
        for name in set(getattr(containers, option)) - components - {""}:
            raise UserError(
                f"There is no component '{name}': there are {', '.join(sorted(components))}.",
                option,
            )
    for component in components:
        container = specification["deploymentSpec"]["executors"][_LABEL.format(component)][
            "container"
        ]
        if resources := _resources(component, containers):
            container["resources"] = resources
        if containers.env:
            container["env"] = [{"name": n, "value": v} for n, v in containers.env.items()]
    if containers.retries:
        for task in specification["root"]["dag"]["tasks"].values():
            task["retryPolicy"] = {
                "maxRetryCount": containers.retries,
                "backoffDuration": "0s",
                "backoffFactor": 2.0,
                "backoffMaxDuration": "3600s",
            }


def _resources(component: str, containers: Containers) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    for key, given in (("cpuLimit", containers.cpus), ("memoryLimit", containers.memory_gb)):
        limit = given.get(component, given.get("", math.inf))
        if limit < math.inf:
            resources[key] = limit
    if containers.gpus and component == _TRAINER:
        resources["accelerator"] = {"type": containers.gpu_type, "count": str(containers.gpus)}
    return resources


def platforms(specification: dict[str, Any], containers: Containers) -> dict[str, Any]:
    """What only Kubernetes knows, in the form of kubernetes_executor_config.proto.

    Returns:
        The second document of the file. It is empty if nothing is asked for.
    """
    executors = specification["deploymentSpec"]["executors"]
    configured = {label: dict(_kubernetes(containers)) for label in executors}
    if not any(configured.values()):
        return {}
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": configured}}}}


def _kubernetes(containers: Containers) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yields the fields for one container."""
    # Newer kfp-kubernetes write each name in two forms. All backends read this, the older one.
    if containers.volumes:
        yield (
            "pvcMount",
            [{"mountPath": path, "constant": claim} for path, claim in containers.volumes.items()],
        )
    if containers.secrets:
        named = ((name, *of.split("/")) for name, of in containers.secrets.items())
        yield (
            "secretAsEnv",
            [
                {"secretName": secret, "keyToEnv": [{"secretKey": key, "envVar": variable}]}
                for variable, secret, key in named
            ],
        )
    if containers.tolerations:
        yield "tolerations", [_toleration(text) for text in containers.tolerations]


def _toleration(text: str) -> dict[str, str]:
    match = TOLERATION.form.fullmatch(text)
    assert match  # as for every value of the knob
    given = {name: value for name, value in match.groupdict().items() if value is not None}
    return {**given, "operator": "Equal" if "value" in given else "Exists"}


def _string() -> dict[str, str]:
    """A new dict each time, because YAML writes one that comes again as a reference."""
    return {"parameterType": "STRING"}
