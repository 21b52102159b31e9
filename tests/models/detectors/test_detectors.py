import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from models import detectors, metrics
from models.capsnet import CapsNet
from models.detectors.deep_svdd import away_from_zero, svdd_network
from models.errors import UserError
from models.inference import outputs_on
from models.score_names import ANOMALY_SCORE, anomalousness
from tests.backends import BACKEND, INSTALLED, array, tensorflow_only
from tests.conftest import TINY, lively_weights, toy_images

ON_BACKBONE = "capsnet on a backbone"
# Settings with which each learns the toy images in seconds.
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


@pytest.fixture(params=[*detectors.names(), ON_BACKBONE])
def name(request):
    return request.param


@pytest.fixture
def size(name):
    return smallest(name)


def fit(name, toys, calibrated=True, **settings):
    images, labels = toys(400, 4, seed=0, size=smallest(name))
    normal = labels < 3
    detector = make(name, **settings)
    calibration, calibration_labels = toys(200, 4, seed=1, size=smallest(name))
    calibration = calibration[calibration_labels < 3] if calibrated else None
    return detector, detector.fit(images[normal], labels[normal], calibration=calibration)


@pytest.fixture(scope="module")
def fitted():
    """Each detector, trained once."""
    done = {}

    def get(name):
        if name not in done:
            done[name] = fit(name, toy_images)
        return done[name]

    return get


@pytest.fixture
def trained(name, fitted):
    return fitted(name)


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


def arrays(outputs):
    return {key: array(value) for key, value in outputs.items()}


def test_detects(trained, toys, size):
    detector, scorer = trained
    images, labels = toys(200, 4, seed=2, size=size)
    outputs = arrays(scorer(images))
    assert set(detector.scores) | {ANOMALY_SCORE, "class_probabilities"} <= set(outputs)
    for score in (*detector.scores, ANOMALY_SCORE):
        assert outputs[score].shape == (200,)
        assert outputs[score].dtype == np.float32
    assert metrics.auroc(anomalousness(ANOMALY_SCORE, outputs[ANOMALY_SCORE]), labels == 3) >= 0.95
    probabilities = outputs["class_probabilities"]
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    assert (probabilities.argmax(-1) == labels)[labels < 3].mean() > 0.9
    if "reconstruction" in outputs:
        assert outputs["reconstruction"].shape == images.shape
        assert 0 <= outputs["reconstruction"].min() <= outputs["reconstruction"].max() <= 1


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
    train, usual, test = normal[:400], normal[400:560], np.r_[normal[560:], anomalies[:160]]
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


def test_a_saved_model_gives_the_same_scores_in_a_fresh_process(
    trained, toys, on_backend, tmp_path, size
):
    _, scorer = trained
    images, _ = toys(20, 4, seed=2, size=size)
    expected = arrays(scorer(images))
    scorer.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = """
import keras, numpy as np
import models.capsnet, models.efficient_capsnet, models.layers, models.losses, models.vae
scorer = keras.models.load_model("model.keras", safe_mode=True)
scores = {k: keras.ops.convert_to_numpy(v) for k, v in scorer(np.load("images.npy")).items()}
np.savez("scores.npz", **scores)
"""
    for backend in INSTALLED:
        tolerance = 1e-6 if backend == BACKEND else 1e-4
        on_backend(backend, code, tmp_path)
        found = np.load(tmp_path / "scores.npz")
        assert set(found) == set(expected)
        for key, value in expected.items():
            # Rounding may move an image past one of the 150 calibration scores.
            rank = 1 / 151 if key == ANOMALY_SCORE and backend != BACKEND else 0
            np.testing.assert_allclose(found[key], value, rtol=tolerance, atol=tolerance + rank)


@pytest.mark.skipif("jax" not in INSTALLED, reason="needs JAX")
def test_trains_under_jax(name, toys, on_backend, tmp_path, size):
    if name == "patch_knn":
        pytest.skip("capsnet on a backbone computes the same and trains besides")
    images, labels = toys(120, 3, seed=0, size=size)
    np.savez(tmp_path / "toys.npz", images=images, labels=labels)
    one_epoch = {**toy_settings(name), **({"epochs": 1} if "epochs" in TOY[name] else {})}
    name = name.removesuffix(" on a backbone")
    code = f"""
import numpy as np
from models import detectors
toys = np.load("toys.npz")
detector = detectors.get({name!r}, **{one_epoch!r})
scorer = detector.fit(toys["images"], toys["labels"], calibration=toys["images"][:20])
print(all(np.isfinite(np.asarray(v)).all() for v in scorer(toys["images"][:3]).values()))
"""
    assert on_backend("jax", code, tmp_path) == "True\n"


@tensorflow_only
def test_the_exported_model_gives_the_same_scores(trained, toys, tmp_path, size):
    import tensorflow as tf

    from components.serving.export import export

    _, scorer = trained
    images, _ = toys(20, 4, seed=2, size=size)
    export(scorer, images.shape[1:3], str(tmp_path))
    served = tf.saved_model.load(str(tmp_path)).signatures["explain_arrays"](images=images)
    for key, value in arrays(scorer(images)).items():
        # A map is a small difference of large distances.
        tolerance = 1e-4 if key == "anomaly_map" else 1e-5
        assert np.abs(served[key] - value).max() <= tolerance * np.abs(value).max()


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


def test_one_image_scores_as_in_a_batch(trained, toys, size):
    _, scorer = trained
    images, _ = toys(20, 4, seed=2, size=size)
    together, alone = arrays(scorer(images)), arrays(scorer(images[:1]))
    for key, value in alone.items():
        np.testing.assert_allclose(value, together[key][:1], rtol=1e-4, atol=1e-4)


def test_an_empty_batch_has_no_scores(trained, size):
    _, scorer = trained
    for name, value in arrays(scorer(np.zeros((0, size, size, 1), "uint8"))).items():
        assert len(value) == 0, name
        assert value.shape[1:] == tuple(scorer.output[name].shape[1:])


@pytest.mark.parametrize("value", [0, 255])
def test_blank_images_have_finite_scores(trained, value, size):
    _, scorer = trained
    outputs = arrays(scorer(np.full((2, size, size, 1), value, "uint8")))
    assert all(np.isfinite(output).all() for output in outputs.values())


def test_any_image_size_is_scored(trained):
    _, scorer = trained
    images = np.random.default_rng(0).integers(0, 256, (2, 31, 20, 1), dtype="uint8")
    assert np.isfinite(array(scorer(images)["anomaly_score"])).all()


def test_a_wrong_number_of_channels_is_refused(trained, size):
    _, scorer = trained
    with pytest.raises(ValueError, match="incompatible|expected shape"):
        scorer(np.zeros((2, size, size, 3), "uint8"))


def test_same_seed_same_scores_other_seed_others(name, toys, size):
    images, _ = toys(20, 4, seed=2, size=size)
    brief = {"epochs": 2} if "epochs" in TOY[name] else {}

    def scores(seed):
        detector, scorer = fit(name, toys, calibrated=False, seed=seed, **brief)
        return array(scorer(images)[detector.scores[0]])

    expected = scores(0)
    np.testing.assert_array_equal(scores(0), expected)
    assert (scores(1) != expected).any()


def test_settings_are_described(name):
    name = name.removesuffix(" on a backbone")
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
        (np.zeros((4, 12, 12, 1), "uint8"), [0, 2, 0, 2], "each present"),
        (np.zeros((4, 12, 12, 1), "uint8"), [0, 1, -1, 1], "never trained on"),
    ],
)
def test_senseless_training_data_is_refused(name, images, labels, message):
    with pytest.raises(UserError, match=message):
        make(name).fit(images, np.array(labels))


@pytest.mark.parametrize("name", sorted(set(detectors.names()) - {"dbn"}))
def test_too_small_images_are_refused(name):
    with pytest.raises(UserError, match="too small"):
        detectors.get(name).check_image_size((4, 4))


def test_conformity_adds_up_what_is_unusual(fitted, toys):
    """Against a transcription in NumPy of what the detector documents."""
    _, scorer = fitted("capsnet")
    images, labels = toys(50, 4, seed=2, size=smallest("capsnet"))
    inner = {layer.name: layer for layer in scorer.layers}
    (network,) = (layer for layer in scorer.layers if isinstance(layer, CapsNet))
    outputs = arrays(scorer(images))
    seen = array(network(images.astype("float32") / 255)["capsules"])
    lengths = np.sort(np.linalg.norm(seen, axis=-1), axis=-1)

    def distances(features, bank):
        features = features / np.linalg.norm(features, axis=-1, keepdims=True)
        return np.sort(np.linalg.norm(features[:, None] - array(bank)[None], axis=-1), axis=1)[:, 4]

    terms = [
        -lengths[:, -1],
        lengths[:, :-1].sum(axis=-1) - lengths[:, -1],
        distances(seen.reshape(len(seen), -1), inner["nearest_poses"].bank),
    ]
    rescalings = [layer for name, layer in inner.items() if name.startswith("rescaling")]
    parts = [
        values * layer.scale + layer.offset for layer, values in zip(rescalings, terms, strict=True)
    ]
    # Images of the classes trained on are usual in all, by median and 0.9 quantile.
    for part in parts:
        assert np.abs(np.median(part[labels < 3])) < 1
        assert np.median(part[labels == 3]) > 1
    unusual = sum(parts)
    # sigmoid(-asinh(u)) in algebra
    expected = 1 / (1 + unusual + np.sqrt(1 + unusual**2))
    np.testing.assert_allclose(outputs["conformity"], expected, rtol=1e-3)


def test_only_components_of_centres_near_zero_are_moved():
    centres = np.array([[0.0, 0.04, -0.04, 0.1, -0.1, 0.3, -7.0]])
    np.testing.assert_array_equal(away_from_zero(centres), [[0.1, 0.1, -0.1, 0.1, -0.1, 0.3, -7.0]])


def test_the_centres_of_deep_svdd_are_the_first_means_away_from_zero(fitted, toys):
    _, scorer = fitted("deep_svdd")
    images, labels = toys(400, 4, seed=0, size=smallest("deep_svdd"))
    keras.utils.set_random_seed(0)
    features = outputs_on(svdd_network((18, 18, 1), 32), images)
    means = np.stack([features[labels == label].mean(axis=0) for label in range(3)])
    found = array(scorer.get_layer("centres").centres)
    small = np.abs(means) < 0.1
    assert small.any() and not small.all()
    np.testing.assert_allclose(found[~small], means[~small], rtol=1e-3)
    np.testing.assert_allclose(found[small], 0.1 * np.sign(means[small]), rtol=1e-6)


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

    scorer = detector.fit(images, labels, validation=(images[:9], labels[:9]))
    assert set(array(scorer(images)["nearest_image"])) <= set(range(60))
    np.testing.assert_array_equal(array(scorer(images)["nearest_image"]), np.arange(60))
