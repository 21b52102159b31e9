import keras
import numpy as np
import pytest

from models import detectors, metrics
from models.errors import UserError
from models.scores import ANOMALY_SCORE, anomalousness

SMALL = {"epochs": 6, "batch_size": 30, "learning_rate": 0.01}


@pytest.fixture(params=detectors.names())
def name(request):
    return request.param


@pytest.fixture
def trained(name, toys, tiny):
    images, labels = toys(300, 4, seed=0)
    normal = labels < 3
    detector = detectors.get(name, **SMALL, **tiny)
    calibration, calibration_labels = toys(200, 4, seed=1)
    scorer = detector.fit(
        images[normal], labels[normal], calibration=calibration[calibration_labels < 3]
    )
    return detector, scorer


def test_detects_and_survives_saving(trained, toys, tmp_path):
    detector, scorer = trained
    images, labels = toys(200, 4, seed=2)
    outputs = {key: np.asarray(value) for key, value in scorer(images).items()}
    assert set(detector.scores) | {ANOMALY_SCORE, "class_probabilities"} <= set(outputs)
    for score in (*detector.scores, ANOMALY_SCORE):
        assert outputs[score].shape == (200,)
    assert metrics.auroc(anomalousness(ANOMALY_SCORE, outputs[ANOMALY_SCORE]), labels == 3) > 0.9
    probabilities = outputs["class_probabilities"]
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    assert (probabilities.argmax(-1) == labels)[labels < 3].mean() > 0.9

    scorer.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    for key, value in loaded(images).items():
        np.testing.assert_array_equal(value, outputs[key])


def test_any_image_size_is_scored(trained):
    _, scorer = trained
    images = np.random.default_rng(0).integers(0, 256, (2, 31, 20, 1), dtype="uint8")
    assert np.isfinite(np.asarray(scorer(images)["anomaly_score"])).all()


def test_settings_are_described(name):
    detector = detectors.describe(name)
    assert detector.name == name
    for field in detector.settings():
        assert field.metadata["description"].endswith(".")


def test_unknown_names_and_settings():
    with pytest.raises(UserError, match="Unknown detector 'capsnt'.*Did you mean capsnet"):
        detectors.get("capsnt")
    with pytest.raises(UserError, match="no setting 'epoch'.*epochs"):
        detectors.get("capsnet", epoch=3)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 12, 12, 1)), [0, 1, 0, 1], "uint8"),
        (np.zeros((4, 12, 12), "uint8"), [0, 1, 0, 1], "shape"),
        (np.zeros((4, 12, 12, 2), "uint8"), [0, 1, 0, 1], "1 or 3"),
        (np.zeros((4, 12, 12, 1), "uint8"), [0, 1, 0], "4 training images but 3 labels"),
        (np.zeros((4, 12, 12, 1), "uint8"), [0, 0, 0, 0], "at least two classes"),
        (np.zeros((4, 12, 12, 1), "uint8"), [0, 2, 0, 2], "each present"),
        (np.zeros((4, 12, 12, 1), "uint8"), [0, 1, -1, 1], "never trained on"),
    ],
)
def test_senseless_training_data_is_refused(name, images, labels, message):
    with pytest.raises(UserError, match=message):
        detectors.get(name).fit(images, np.array(labels))


def test_too_small_images_are_refused(name):
    with pytest.raises(UserError, match="too small"):
        detectors.get(name).check_image_size((8, 8))
