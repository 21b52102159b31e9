import dataclasses

import pytest

from models import detectors
from models.errors import UserError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0."),
        ({"epochs": 1.5}, "epochs must be a whole number of at least 1, not 1.5."),
        ({"epochs": "3"}, "epochs must be a whole number of at least 1, not '3'."),
        ({"epochs": True}, "epochs must be a whole number of at least 1, not True."),
        ({"learning_rate": 0}, "learning_rate must be a number above 0, or null, not 0."),
        ({"learning_rate": float("nan")}, "learning_rate must be .* not nan."),
        ({"brightness": 1.5}, "brightness must be a number of at least 0 and at most 1, not 1.5."),
        ({"shift": -1}, "shift must be a whole number of at least 0, not -1."),
        ({"patience": 0}, "patience must be a whole number of at least 1, or null, not 0."),
        ({"flip": 1}, "flip must be true or false, not 1."),
        (
            {"decoder_units": []},
            r"decoder_units must be whole numbers of at least 1, such as .*, not \[\].",
        ),
        ({"decoder_units": (5, 0)}, r"decoder_units must be .*, not \(5, 0\)."),
        (
            {"crop_size": (5,)},
            r"crop_size must be two whole numbers of at least 1, such as \[28, 28\], or null, not",
        ),
        ({"schedule": "warm"}, "schedule must be auto, linear or one_cycle, not 'warm'."),
        ({"precision": "float16"}, "precision must be float32 or bfloat16, not 'float16'."),
        (
            {"calibrated_score": "elbo"},
            "calibrated_score must be conformity, pp or re, not 'elbo'.",
        ),
        ({"seed": 2**32}, "seed must be a whole number of at least 0 and at most 4.29497e"),
    ],
)
def test_values_out_of_range(settings, message):
    with pytest.raises(UserError, match=message) as raised:
        detectors.get("capsnet", **settings)
    assert raised.value.settings == tuple(settings)


@pytest.mark.parametrize("name", detectors.names())
def test_every_number_of_every_detector_has_a_range(name):
    for field in detectors.describe(name).settings():
        kind = str(field.type)
        for marker, wrong in (("int", -1), ("float", -1.0), ("bool", "yes"), ("str", 7)):
            if kind.startswith(marker):
                with pytest.raises(UserError, match=f"{field.name} must be"):
                    detectors.get(name, **{field.name: wrong})
        if kind.startswith("tuple"):
            with pytest.raises(UserError, match=f"{field.name} must be"):
                detectors.get(name, **{field.name: (3, -1)})


@pytest.mark.parametrize("name", detectors.names())
def test_defaults_are_within_their_ranges(name):
    detector = detectors.get(name)
    assert {field.name for field in dataclasses.fields(detector)} >= {"seed", "backup_dir"}
