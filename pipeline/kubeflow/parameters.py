"""The runtime parameters of a compiled pipeline: what may differ from run to run.

They are knobs. Each is a text, in the form of the knob's CAPSAD_* variable. An empty text leaves
the knob as the named pipeline has it.
"""

from collections.abc import Mapping
from typing import Any

from models.errors import UserError
from pipeline import configs
from pipeline.configs import KubeflowConfig, PipelineConfig
from pipeline.knobs import Knob, knobs
from pipeline.plan import make_detector

DATA_DIR = "data_dir"
# These have no meaning in containers, or KubeflowConfig has a knob of the same name.
LOCAL = ("images", DATA_DIR, "output", "score_images", "infra_validation")
# Beam's arguments are a part of the containers' commands.
_FIXED = (*LOCAL, "beam_args")
PARAMETERS: dict[str, Knob] = {
    **{knob.name: knob for knob in knobs(PipelineConfig) if knob.name not in _FIXED},
    **{knob.name: knob for knob in knobs(KubeflowConfig) if knob.name == DATA_DIR},
}


def environment(**given: Any) -> dict[str, str]:
    """The texts of the parameters that CAPSAD_* variables set, or that are given.

    Args:
        **given: name of a knob -> its value, which goes before the variable. `None` and `()` count
            as not given.

    Raises:
        UserError: if a variable is out of range or has no meaning on Kubeflow.
    """
    values = configs.from_environment(PipelineConfig)
    for knob in knobs(PipelineConfig):
        if knob.name in LOCAL and knob.name != "output" and knob.name in values:
            raise UserError(f"{knob.variable} has no meaning on Kubeflow: unset it.")
    values |= {name: value for name, value in given.items() if value not in (None, ())}
    return {
        name: knob.text(knob.convert(values[name]))
        for name, knob in PARAMETERS.items()
        if name in values
    }


def configure(pipeline: str, texts: Mapping[str, str]) -> PipelineConfig:
    """The pipeline that a run describes, without its data.

    Args:
        pipeline: name of the pipeline.
        texts: name of a parameter -> its text.

    Raises:
        UserError: if a text is out of range, or the settings do not suit the detector.
    """
    values = {}
    for name, knob in PARAMETERS.items():
        if text := texts.get(name):
            try:
                values[name] = knob.convert(knob.split(text))
            except ValueError as error:  # UserError, or shlex's for a quotation without an end
                raise UserError(f"The parameter {name}: {error}") from None
    values.pop(DATA_DIR, None)
    config = configs.override(configs.get(pipeline), **values)
    if config.training.detector:
        make_detector(config)
    return config
