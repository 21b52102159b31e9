"""Every detector, with settings with which it learns toy images in seconds."""

from models import detectors
from tests.backends import array
from tests.conftest import TINY, lively_weights

ON_BACKBONE = "capsnet on a backbone"
TOY = {
    "capsnet": {"epochs": 6, "batch_size": 30, "learning_rate": 0.01, **TINY},
    "efficient_capsnet": {"epochs": 6, "batch_size": 30, "decoder_units": (32,)},
    "matrix_capsnet": {
        "epochs": 8,
        "batch_size": 30,
        "filters": 8,
        "primary_types": 4,
        "capsule_types": (6, 6),
        "decoder_units": (32,),
    },
    "cnn_softmax": {"epochs": 4, "batch_size": 30, "learning_rate": 0.001, "neighbours": 3},
    "cnn_ocsvm": {"epochs": 4, "batch_size": 30, "learning_rate": 0.001},
    "vae": {"epochs": 30, "batch_size": 30, "learning_rate": 0.003},
    "dbn": {"epochs": 60, "batch_size": 30, "units": (60, 60)},
    "deep_svdd": {"epochs": 10, "batch_size": 30, "learning_rate": 0.003},
    "geom": {"epochs": 20, "batch_size": 30, "learning_rate": 0.001, "architecture": "paper"},
    "patch_knn": {"weights": "none", "bank_size": 300},
    ON_BACKBONE: {
        "epochs": 12,
        "batch_size": 30,
        "learning_rate": 0.003,
        "primary_types": 8,
        "decoder_units": (32,),
        "backbone": "mobilenet",
        "weights": "none",
        "bank_size": 300,
    },
}


def smallest(name):
    """A size of images that is small and suits the detector."""
    return 64 if name in ("patch_knn", ON_BACKBONE) else 18


def toy_settings(name):
    return {**TOY[name], **({"weights": lively_weights()} if "weights" in TOY[name] else {})}


def make(name, **settings):
    return detectors.get(name.removesuffix(" on a backbone"), **{**toy_settings(name), **settings})


def fit(name, toys, calibrated=True, **settings):
    images, labels = toys(400, 4, seed=0, size=smallest(name))
    normal = labels < 3
    detector = make(name, **settings)
    calibration, calibration_labels = toys(200, 4, seed=1, size=smallest(name))
    calibration = calibration[calibration_labels < 3] if calibrated else None
    return detector, detector.fit(images[normal], labels[normal], calibration=calibration)


def arrays(outputs):
    return {key: array(value) for key, value in outputs.items()}
