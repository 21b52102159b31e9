"""Every option, variable and setting with values that are wrong for it."""

import dataclasses
import math

import click
import pytest
from click.testing import CliRunner

from models import detectors
from models.detectors.base import Detector
from pipeline import cli
from pipeline.configs import KubeflowConfig, PipelineConfig
from pipeline.knobs import knobs
from pipeline.parameters import FiniteRange, ImageSize, NameValue

NO_NUMBERS = ("abc", "nan", "1,5", "[1]", "0x10", "--", "1 2", "١x")
HUGE = "9" * 30


def wrong_values(kind):
    """Texts that are no value of a click type."""
    if isinstance(kind, click.Choice):
        return ("other", "None", f"{kind.choices[0]} ")
    if isinstance(kind, FiniteRange):
        ends = ["inf", "-inf", "1e400"]
        ends += [] if kind.min is None else [str(kind.min - 1)]
        ends += [str(kind.min)] if kind.min_open else []
        ends += [] if kind.max is None else [str(kind.max + 1)]
        return (*NO_NUMBERS, *ends)
    if isinstance(kind, click.IntRange):
        ends = [] if kind.min is None else [str(kind.min - 1), f"-{HUGE}"]
        ends += [] if kind.max is None else [str(kind.max + 1), HUGE]
        return (*NO_NUMBERS, "1.5", "1e3", *ends)
    if isinstance(kind, ImageSize):
        return (*NO_NUMBERS, "0", "-1", "28x", "x28", "0x28", "28x0", "1.5", "28x28x28", HUGE)
    if isinstance(kind, NameValue):
        return ("x", "=", "=1")
    return ()


def wrong_settings(detector, field):
    """JSON texts that are no value of a detector's setting."""
    kind = str(field.type).removesuffix(" | None")
    values = ["{}", "[[1]]", '[1, "a"]']
    values += [] if "| None" in str(field.type) else ["null"]
    if kind in ("int", "float"):
        values += ["NaN", "-Infinity", "abc", "true", "[1]", '"1"']
        least = field.metadata["least"]
        values += [str(0 if least is None else least - 1), "-1"]
        values += ["1.5"] if kind == "int" else []
        values += [str(field.metadata["most"] + 1)] if field.metadata["most"] < math.inf else []
    elif kind == "bool":
        values += ["1", "0", "yes", '"true"']
    elif kind == "str":
        values += ["3", "true", *(["other"] if field.metadata["choices"] else [])]
    else:
        values += ["[]", "[0]", "[-1, 2]", "3", "[1.5, 2]", "[true, 1]", "[1, NaN]"]
    return values


def commands():
    """Wrong commands: arguments and variables."""
    base = {
        "run": ["run", "digits"],
        "study": ["study", "digits"],
        "score": ["score", "a", "b"],
        "inspect": ["inspect", "."],
    }
    for name, command in cli.main.commands.items():
        for option in command.params:
            if not isinstance(option, click.Option) or name not in base:
                continue
            for value in wrong_values(option.type):
                yield [*base[name], f"{option.opts[0]}={value}"], {}
            yield [*base[name], f"{option.opts[0]}x"], {}
    for config in (PipelineConfig, KubeflowConfig):
        for knob in knobs(config):
            command = ["run", "digits"]
            if config is KubeflowConfig:
                command = ["kubeflow", "compile", "digits", "--image=capsad"]
            for value in wrong_values(knob.kind) if knob.variable else ():
                yield command, {knob.variable: value}
    for detector in detectors.names():
        for field in detectors.describe(detector).settings():
            for value in wrong_settings(detector, field):
                setting = f"--set={field.name}={value}"
                yield ["run", "digits", f"--detector={detector}", setting], {}
    for field in dataclasses.fields(Detector):
        yield ["run", "digits", f"--set={field.name}=1"], {}
    for name in ("epoch", "_classes", "history", "__class__", "name", "Epochs", " epochs", "train"):
        yield ["run", "digits", f"--set={name}=1"], {}


COMMANDS = list(commands())


def test_there_are_many():
    assert len(COMMANDS) > 1500


@pytest.mark.parametrize("part", range(8))
def test_each_is_refused_in_one_sentence(part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faults = []
    for arguments, variables in COMMANDS[part::8]:
        result = CliRunner().invoke(cli.main, arguments, env=variables)
        lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        if result.exit_code != 2 or len(lines) != 1 or "Traceback" in result.output:
            faults.append((arguments, variables, result.exit_code, result.output[-300:]))
        assert not list(tmp_path.iterdir()), (arguments, variables)
    assert not faults, faults[:20]
