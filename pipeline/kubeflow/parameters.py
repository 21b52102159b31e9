"""The runtime parameters of a compiled pipeline: what may differ from run to run.

They are knobs. Each is a text, in the form of the knob's CAPSAD_* variable. An empty text leaves
the knob as the named pipeline has it.
"""

from collections.abc import Mapping

from models.errors import UserError
from pipeline import configs
from pipeline.configs import KubeflowConfig, PipelineConfig
from pipeline.knobs import Knob, knobs
from pipeline.plan import make_detector

DATA_DIR = "data_dir"
# Beam's arguments are a part of the containers' commands. The others have no meaning there.
_FIXED = ("images", DATA_DIR, "output", "score_images", "infra_validation", "beam_args")
PARAMETERS: dict[str, Knob] = {
    **{knob.name: knob for knob in knobs(PipelineConfig) if knob.name not in _FIXED},
    **{knob.name: knob for knob in knobs(KubeflowConfig) if knob.name == DATA_DIR},
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
