"""What is trained anew for each test."""

import random

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from models import detectors, metrics
from models.errors import UserError
from models.score_names import ANOMALY_SCORE
from tests.backends import INSTALLED, array
from tests.models.detectors.small import ON_BACKBONE, TOY, arrays, fit, make, smallest, toy_settings


def test_one_normal_class_or_a_clear_refusal(name, toys, size):
    images, labels = toys(600, 4, seed=0, size=size)
    normal = images[labels == 0]
    detector = make(name)
    zeros = np.zeros(len(normal), int)
    if detector.least_classes > 1:
        with pytest.raises(UserError, match="with C at least 2"):
            detector.fit(normal, zeros)
        return
    scorer = detector.fit(normal[:120], zeros[:120], calibration=normal[120:])
    tested, test_labels = toys(200, 4, seed=2, size=size)
    outputs = arrays(scorer(tested))
    assert outputs["class_probabilities"].tolist() == [[1.0]] * 200
    # Bars of all classes are much alike to geom, which only tells how an image was turned.
    floor = 0.6 if name == "geom" else 0.9
    assert metrics.auroc(outputs[ANOMALY_SCORE], test_labels != 0) >= floor


@pytest.fixture(scope="module")
def inverted_digits():
    """Real digits, dark on light: images of 18x18 and labels, 0 to 3 normal, in random order."""
    digits = load_digits()
    images = np.kron(digits.images, np.ones((1, 2, 2))) * 255 / 16
    images = 255 - np.pad(images, ((0, 0), (1, 1), (1, 1))).astype("uint8")[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    return images[order], digits.target[order]


@pytest.mark.parametrize("name", [name for name in TOY if smallest(name) < 64])
def test_a_light_background_is_learned_too(name, inverted_digits):
    images, labels = inverted_digits
    (normal,), (anomalies,) = np.nonzero(labels < 4), np.nonzero(labels >= 6)
    train, usual, test = normal[:240], normal[240:400], np.r_[normal[560:], anomalies[:160]]
    scorer = make(name).fit(
        images[train],
        labels[train],
        validation=(images[usual], labels[usual]),
        calibration=images[usual],
    )
    outputs = scorer.predict(images[test], verbose=0)
    is_anomaly = labels[test] >= 4
    assert metrics.auroc(outputs[ANOMALY_SCORE], is_anomaly) > 0.7
    predicted = outputs["class_probabilities"].argmax(axis=-1)
    assert (predicted == labels[test])[~is_anomaly].mean() > 0.6  # 0.25 is guessing


def test_same_seed_same_scores_other_seed_others(name, toys, size):
    images, _ = toys(20, 4, seed=2, size=size)
    brief = {"epochs": 2} if "epochs" in TOY[name] else {}

    def scores(seed):
        detector, scorer = fit(name, toys, calibrated=False, seed=seed, **brief)
        return array(scorer(images)[detector.scores[0]])

    expected = scores(0)
    np.testing.assert_array_equal(scores(0), expected)
    assert (scores(1) != expected).any()


@pytest.mark.skipif("jax" not in INSTALLED, reason="needs JAX")
def test_trains_under_jax(name, toys, on_backend, tmp_path, size):
    if name == "patch_knn":
        pytest.skip("capsnet on a backbone computes the same and trains besides")
    images, labels = toys(120, 3, seed=0, size=size)
    np.savez(tmp_path / "toys.npz", images=images, labels=labels)
    one_epoch = {**toy_settings(name), **({"epochs": 1} if "epochs" in TOY[name] else {})}
    name = name.removesuffix(" on a backbone")
    code = f"""
import jax, numpy as np
from models import detectors
events = []
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.append(event))
toys = np.load("toys.npz")
detector = detectors.get({name!r}, **{one_epoch!r})
scorer = detector.fit(toys["images"], toys["labels"], calibration=toys["images"][:20])
outputs = scorer.predict_on_batch(toys["images"][:3])
print(all(np.isfinite(values).all() for values in outputs.values()))
print(sum(event.endswith("backend_compile_duration") for event in events))
"""
    finite, programs = on_backend("jax", code, tmp_path).split()
    assert finite == "True"
    # Networks are compiled as a whole, not each operation of theirs.
    assert 0 < int(programs) < 100


@pytest.mark.parametrize("name", sorted(set(detectors.names()) - {"patch_knn"}))
def test_crops_standardisation_and_augmentation_of_every_detector_that_sees_pixels(name, toys):
    """It must learn from parts of images that are brighter than those it is tested on."""
    images, labels = toys(300, 3, seed=0, size=24)
    images[:, :, 18:] = images[:, :, :6]  # what a part shows depends little on where it is cut out
    settings = {"crop_size": (20, 20), "standardise": True, "seed": 0}
    settings |= {"epochs": 1}
    if name != "dbn":
        settings |= {"shift": 1, "flip": True, "brightness": 0.1, "patience": 1}
        settings |= {"weight_decay": 1e-4}
    detector = make(name, **settings)
    scorer = detector.fit(images, labels, validation=(images[:30], labels[:30]))
    outputs = arrays(scorer(images[:5]))
    assert all(np.isfinite(values).all() for values in outputs.values())
    # Only the centre is seen, ...
    changed = images[:5].copy()
    changed[:, 0], changed[:, -1], changed[:, :, 0], changed[:, :, -1] = 255, 255, 255, 255
    for key, values in arrays(scorer(changed)).items():
        np.testing.assert_allclose(values, outputs[key], rtol=1e-5, atol=1e-5)
    # ... and contrast does not matter, except to what is compared with pixels.
    faint = arrays(scorer(images[:5] // 2 + 60))["class_probabilities"]
    np.testing.assert_allclose(faint, outputs["class_probabilities"], atol=0.05)
    with pytest.raises(UserError, match="Parts of 20x20 pixels cannot be cut out of images of 9x9"):
        detector.seen_size((9, 9))


@pytest.mark.parametrize("name", ["cnn_softmax", "patch_knn"])  # without and with a backbone
def test_any_score_can_be_calibrated(name, toys, size):
    images, labels = toys(90, 4, seed=0, size=size)
    normal = labels < 3
    kept = toys(60, 3, seed=1, size=size)[0]
    for score in detectors.describe(name).scores[-2:]:
        detector = make(name, calibrated_score=score)
        scorer = detector.fit(images[normal], labels[normal], calibration=kept)
        calibration = array(scorer.get_layer(ANOMALY_SCORE).calibration_scores)
        values = np.sort(array(scorer(kept)[score]))
        np.testing.assert_allclose(calibration, values, rtol=1e-4, atol=1e-4)


def test_on_a_backbone_changed_copies_are_trained_on_but_not_compared_with(toys):
    images, labels = toys(60, 3, seed=0, size=64)
    changes = {"flip": True, "shift": 2, "brightness": 0.1, "augmented_copies": 2}
    detector = make(ON_BACKBONE, **changes, epochs=1)
    more, more_labels = detector.augmented(images, labels)
    assert len(more) == 180
    np.testing.assert_array_equal(more[:60], images)
    np.testing.assert_array_equal(more_labels, np.tile(labels, 3))
    assert (more[60:120] != images).any() and (more[60:120] != more[120:]).any()
    np.testing.assert_array_equal(detector.augmented(images, labels)[0], more)
    plain = make(ON_BACKBONE)
    assert len(plain.augmented(images, labels)[0]) == 60

    scorer = detector.fit(images, labels, validation=(images[:12], labels[:12]))
    assert set(array(scorer(images)["nearest_image"])) <= set(range(60))
    np.testing.assert_array_equal(array(scorer(images)["nearest_image"]), np.arange(60))


@pytest.mark.parametrize("name", ["capsnet", ON_BACKBONE])
def test_one_validation_image_does_not_set_the_scale_of_terms(name, toys):
    images, labels = toys(60, 3, seed=0, size=smallest(name))
    scorer = make(name, epochs=1).fit(images, labels, validation=(images[:1], labels[:1]))
    scales = [layer.scale for layer in rescalings(scorer) if np.ndim(layer.offset) == 0]
    assert len(scales) == 3
    # A spread of 0 is taken as 0.01 or 0.000001.
    assert sum(scale > 99.9 for scale in scales) <= 1  # Lengths are much alike after one epoch.


def rescalings(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from rescalings(layer)
        elif isinstance(layer, keras.layers.Rescaling):
            yield layer


def test_a_collapse_on_a_backbone_is_started_once_more_and_calibrated(toys):
    images, _ = toys(24, 1, seed=0, size=64)
    labels = np.arange(24) % 2  # which say nothing of the images
    detector = make(ON_BACKBONE, epochs=3)
    scorer = detector.fit(images, labels, calibration=images[:6])
    assert any("started once more" in note for note in detector.notes)
    assert array(scorer(images)[ANOMALY_SCORE]).shape == (24,)


def test_random_numbers_of_the_caller_are_left_alone(toys):
    images, labels = toys(30, 3, seed=0, size=18)
    random.seed(1), np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1), np.random.seed(1)
    make("cnn_softmax", epochs=1).fit(images, labels)
    assert (random.random(), np.random.random()) == expected


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 12, 12, 1)), [0, 1, 0, 1], "uint8"),
        (np.zeros((4, 12, 12), "uint8"), [0, 1, 0, 1], "shape"),
        (np.zeros((4, 12, 12, 2), "uint8"), [0, 1, 0, 1], "1 or 3"),
        (np.zeros((4, 12, 12, 1), "uint8"), [0, 1, 0], "4 training images but 3 labels"),
        (np.zeros((4, 12, 12, 1), "uint8"), [0, 2, 0, 2], "each present"),
        (np.zeros((4, 12, 12, 1), "uint8"), [0, 1, -1, 1], "never trained on"),
    ],
)
def test_senseless_training_data_is_refused(name, images, labels, message):
    with pytest.raises(UserError, match=message):
        make(name).fit(images, np.array(labels))
