"""On a small specification; tests/pipeline/test_kubeflow_v2_runner.py has what TFX compiles."""

import pytest
import yaml

from models.errors import UserError
from pipeline.configs import Containers
from pipeline.kubeflow import specification
from pipeline.kubeflow.parameters import PARAMETERS
from pipeline.kubeflow.plan_step import PLANNED


@pytest.fixture
def given():
    """What TFX compiles, as far as it counts here."""
    return {
        "components": {name: {"executorLabel": f"{name}_executor"} for name in PLANNED},
        "deploymentSpec": {
            "executors": {f"{name}_executor": {"container": {"image": "i"}} for name in PLANNED}
        },
        "root": {
            "dag": {
                "tasks": {
                    name: {"inputs": {"parameters": {"fixed": 1}}, "cachingOptions": {}}
                    for name in PLANNED
                }
            }
        },
    }


def test_the_plan_feeds_components(given):
    specification.add_plan(given, "capsad_digits", {"epochs": "2"}, "i")
    tasks = given["root"]["dag"]["tasks"]
    assert tasks["Evaluator"]["dependentTasks"] == ["Plan"]
    produced = given["components"]["Plan"]["outputDefinitions"]["parameters"]
    for component, names in PLANNED.items():
        parameters = dict(tasks[component]["inputs"]["parameters"])
        assert parameters.pop("fixed") == 1
        assert set(parameters) == set(names)
        for parameter in parameters.values():
            output = parameter["taskOutputParameter"]
            assert output["producerTask"] == "Plan"
            assert produced.pop(output["outputParameterKey"]) == {"parameterType": "STRING"}
    assert not produced


def test_defaults_are_read_again_from_the_file(given):
    specification.add_plan(given, "capsad_digits", {"epochs": "2", "anomaly": "3,5"}, "i")
    written = yaml.safe_dump(given)
    assert "&id" not in written  # no reference, which some readers refuse
    name, defaults = specification.parameters(yaml.safe_load(written))
    assert name == "capsad_digits"
    assert defaults == {**dict.fromkeys(PARAMETERS, ""), "epochs": "2", "anomaly": "3,5"}


def test_nothing_asked_leaves_all_as_it_is(given):
    before = yaml.safe_dump(given)
    specification.set_containers(given, Containers())
    assert yaml.safe_dump(given) == before
    assert specification.platforms(given, Containers()) == {}


def test_one_component_goes_before_all(given):
    containers = Containers(cpus={"": 1, "Trainer": 8}, memory_gb={"Report": 2}, gpus=1)
    specification.set_containers(given, containers)
    resources = {
        name: given["deploymentSpec"]["executors"][f"{name}_executor"]["container"]["resources"]
        for name in ("Trainer", "Report", "Evaluator")
    }
    gpu = {"type": "nvidia.com/gpu", "count": "1"}
    assert resources == {
        "Trainer": {"cpuLimit": 8, "accelerator": gpu},
        "Report": {"cpuLimit": 1, "memoryLimit": 2},
        "Evaluator": {"cpuLimit": 1},
    }


def test_a_component_that_is_not_there(given):
    with pytest.raises(UserError, match="no component 'Trainr': there are .*Trainer") as caught:
        specification.set_containers(given, Containers(memory_gb={"Trainr": 1}))
    assert caught.value.settings == ("memory_gb",)


@pytest.mark.parametrize(
    ("text", "toleration"),
    [
        ("spot", {"key": "spot", "operator": "Exists"}),
        ("a=b", {"key": "a", "operator": "Equal", "value": "b"}),
        ("a:NoExecute", {"key": "a", "operator": "Exists", "effect": "NoExecute"}),
        (
            "x.y/z=:NoSchedule",
            {"key": "x.y/z", "operator": "Equal", "value": "", "effect": "NoSchedule"},
        ),
    ],
)
def test_tolerations(given, text, toleration):
    made = specification.platforms(given, Containers(tolerations=(text,)))
    executors = made["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["Trainer_executor"] == {"tolerations": [toleration]}
