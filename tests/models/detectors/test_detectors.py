"""What every detector promises, trained once."""

import keras
import numpy as np
import pytest

from models import detectors, metrics
from models.capsnet import CapsNet
from models.detectors.cnn_ocsvm import fit_machine
from models.detectors.deep_svdd import away_from_zero, svdd_network
from models.detectors.geom import GeomDetector
from models.errors import UserError
from models.inference import outputs_on
from models.score_names import ANOMALY_SCORE, anomalousness
from models.training import Batches
from tests.backends import BACKEND, INSTALLED, array, tensorflow_only
from tests.conftest import toy_images
from tests.models.detectors.small import arrays, fit, make, smallest


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


def near_share(scorer, scores):
    """Share (B,) of the calibration scores that rounding may move images with `scores` past."""
    calibration = array(scorer.get_layer(ANOMALY_SCORE).calibration_scores)
    scores = scores[:, None]
    return (np.abs(calibration - scores) <= 1e-4 * (1 + np.abs(scores))).mean(axis=1)


def test_a_saved_model_gives_the_same_scores_in_a_fresh_process(
    trained, toys, on_backend, tmp_path, size
):
    detector, scorer = trained
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
        changes = {
            key: np.abs(found[key] - value) - tolerance * np.abs(value)
            for key, value in expected.items()
        }
        if backend != BACKEND:
            changes[ANOMALY_SCORE] -= near_share(scorer, expected[detector.calibrated_score])
        for key, change in changes.items():
            assert change.max() <= tolerance, key


@tensorflow_only
def test_the_exported_model_gives_the_same_scores(trained, toys, tmp_path, size):
    import tensorflow as tf

    from components.serving.export import export

    detector, scorer = trained
    images, _ = toys(20, 4, seed=2, size=size)
    export(scorer, images.shape[1:3], str(tmp_path))

    def served(optimised):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not optimised})
        return tf.saved_model.load(str(tmp_path)).signatures["explain_arrays"](images=images)

    try:
        plain = served(optimised=False)
    finally:
        optimised = served(optimised=True)
    expected = arrays(scorer(images))
    for key, value in expected.items():
        most = np.abs(value).max()
        assert np.abs(plain[key] - value).max() <= 1e-6 * most, key
        # TensorFlow fuses operations, which rounds otherwise, and on each processor in its own way;
        # conformity and maps are small differences of large distances.
        change = np.abs(optimised[key] - value)
        if key == ANOMALY_SCORE:
            change -= near_share(scorer, expected[detector.calibrated_score])
        assert change.max() <= 1e-4 * most, key


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


@pytest.mark.parametrize("name", sorted(set(detectors.names()) - {"dbn"}))
def test_too_small_images_are_refused(name):
    with pytest.raises(UserError, match="too small"):
        detectors.get(name).check_image_size((4, 4))


def test_conformity_is_that_of_what_is_most_unusual(fitted, toys):
    """Against a transcription in NumPy of what the detector documents."""
    _, scorer = fitted("capsnet")
    images, labels = toys(50, 4, seed=2, size=smallest("capsnet"))
    inner = {layer.name: layer for layer in scorer.layers}
    (network,) = (layer for layer in scorer.layers if isinstance(layer, CapsNet))
    outputs = arrays(scorer(images))
    seen = array(network(images.astype("float32") / 255)["capsules"])
    poses = seen.reshape(len(seen), -1)

    def neighbour_distances(features, bank):
        features = features / np.linalg.norm(features, axis=-1, keepdims=True)
        return np.sort(np.linalg.norm(features[:, None] - array(bank)[None], axis=-1), axis=1)[:, 4]

    terms = [
        -np.linalg.norm(seen, axis=-1).max(axis=-1),
        neighbour_distances(poses, inner["nearest_poses"].bank),
        array(inner["nearest_class"](poses)),
    ]
    rescalings = [layer for name, layer in inner.items() if name.startswith("rescaling")]
    parts = [
        values * layer.scale + layer.offset for layer, values in zip(rescalings, terms, strict=True)
    ]
    # Images of the classes trained on are usual in all, by median and 0.9 quantile.
    for part in parts:
        assert np.abs(np.median(part[labels < 3])) < 1
        assert np.median(part[labels == 3]) > 1
    unusual = np.logaddexp.reduce(3 * np.array(parts, "float64")) / 3
    assert 0 <= (unusual - np.max(parts, axis=0)).min() <= np.log(3) / 3
    # sigmoid(-asinh(u)) in algebra
    expected = 1 / (1 + unusual + np.sqrt(1 + unusual**2))
    np.testing.assert_allclose(outputs["conformity"], expected, rtol=1e-3)


@pytest.mark.parametrize("counts", [(5, 1), (1, 1), (1,)])
def test_a_class_of_one_image_is_known(toys, counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    images, _ = toys(len(labels), 1, seed=0, size=smallest("capsnet"))
    scorer = make("capsnet", epochs=1).fit(images, labels)
    assert np.isfinite(array(scorer(images)["conformity"])).all()


def test_one_class_is_trained_on_every_transformation(toys, monkeypatch):
    drawn = []

    def count(self, model, to_batch, images, labels, *arguments, **settings):
        batches = Batches(images, labels, 20, (18, 18), to_batch, seed=self.seed)
        for _ in range(40):
            drawn.extend(batches[0][1].tolist() + batches[2][1].tolist())
            batches.on_epoch_end()

    monkeypatch.setattr(GeomDetector, "fit_network", count)
    images, _ = toys(60, 1, seed=0, size=18)
    make("geom").fit(images, np.zeros(60, int))
    counts = np.bincount(drawn)
    assert len(counts) == 8
    assert counts.min() > 0.7 * counts.mean()  # 200 of each on average, 13 is one deviation


def test_fewer_images_than_a_batch_are_a_batch_of_a_belief_network(toys):
    """Its gradient compares as many images as it has chains."""
    images, labels = toys(20, 2, seed=0, size=18)
    by_size = [make("dbn", units=(32,), epochs=5, batch_size=size) for size in (20, 100)]
    for detector in by_size:
        detector.fit(images, labels)
    assert by_size[0].history == by_size[1].history


def test_equal_features_are_refused_with_a_way_out():
    with pytest.raises(UserError, match="the same features") as caught:
        fit_machine(np.full((30, 4), 0.5), np.arange(30) % 3, 0.1, 5000, 500, 0)
    assert "learning_rate" in str(caught.value)


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
