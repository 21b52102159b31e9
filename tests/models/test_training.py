import shutil
import sys
import types

import keras
import numpy as np
import pytest

from models import detectors, training
from models.augmentation import Augmentation, centre_crops, random_crops
from models.errors import UserError
from models.training import Backup, Batches, CollapseWatch, create_variables, learning_rates
from tests.backends import array, tensorflow_only
from tests.conftest import TINY, toy_images
from tests.damage import cut, flip


def identity(images, labels):
    return images, labels


def test_batches_cover_everything_once_an_epoch_in_an_order_of_seed_and_epoch(toys):
    images, labels = toys(25, 3, seed=0)
    labels = np.arange(25)

    def epochs(seed, first_epoch=0, count=2):
        batches = Batches(
            images, labels, 10, (12, 12), identity, seed=seed, first_epoch=first_epoch
        )
        seen = []
        for _ in range(count):
            seen.append(np.concatenate([batches[i][1] for i in range(len(batches))]))
            batches.on_epoch_end()
        return seen

    first, second = epochs(seed=1)
    assert sorted(first) == sorted(second) == list(range(25))
    assert (first != second).any()
    np.testing.assert_array_equal(epochs(seed=1)[0], first)
    np.testing.assert_array_equal(epochs(seed=1, first_epoch=1, count=1)[0], second)
    assert (epochs(seed=2)[0] != first).any()


def test_images_are_scaled_and_stay_with_their_labels(toys):
    images, labels = toys(25, 5, seed=0)
    batches = Batches(images, labels, 10, (12, 12), identity, seed=0)
    for index in range(len(batches)):
        scaled, of = batches[index]
        assert scaled.dtype == np.float32
        assert scaled.min() >= 0 and scaled.max() <= 1
        assert (scaled.mean(axis=(1, 3)).reshape(len(of), 6, 2).sum(-1).argmax(-1) == of).all()


@tensorflow_only
def test_the_first_step_is_traced_once_and_nothing_is_learned_before(toys):
    import tensorflow as tf

    traces = []

    def loss(target, predicted):
        if tf.inside_function():
            traces.append(None)
        return keras.ops.square(target - predicted)

    images, labels = toys(20, 2, seed=0)
    batches = Batches(images, labels, 10, (12, 12), identity)
    model = keras.Sequential([keras.Input((12, 12, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1))
    model.compile("adam", loss, metrics=["mae"])
    before = model.get_weights()
    create_variables(model, batches[0])
    assert model.optimizer.built
    assert model.get_metrics_result()["loss"] == 0
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    model.fit(batches, epochs=2, verbose=0)
    assert len(traces) == 1


def test_validation_is_in_order(toys):
    images, labels = toys(7, 3, seed=0)
    batches = Batches(images, labels, 4, (8, 8), identity)
    np.testing.assert_array_equal(batches[1][1], labels[4:])
    np.testing.assert_allclose(batches[0][0], images[:4, 2:10, 2:10] / np.float32(255), rtol=1e-6)


def test_batches_of_several_replicas_divide_evenly_and_leave_nothing_out(toys):
    images, _ = toys(25, 3, seed=0)
    for seed in (None, 0):
        batches = Batches(images, np.arange(25), 10, (12, 12), identity, seed=seed, replicas=4)
        labels = [batches[index][1] for index in range(len(batches))]
        assert [len(batch) for batch in labels] == [12, 12, 4]
        assert set(np.concatenate(labels)) == set(range(25))


def test_an_array_that_is_input_and_target_is_two(toys):
    """TensorFlow writes into the memory of either: the other would change while in use."""
    images, labels = toys(10, 3, seed=0)
    batches = Batches(images, labels, 10, (12, 12), lambda images, labels: (images, images))
    inputs, targets = batches[0]
    np.testing.assert_array_equal(inputs, targets)
    assert not np.shares_memory(inputs, targets)


def test_shifts_move_by_up_to_that_many_pixels_and_pad_with_black():
    images = np.full((200, 6, 6, 1), 255, "uint8")
    shifted = random_crops(images, (6, 6), 2, np.random.default_rng(0))
    rows = (shifted[..., 0].max(axis=2) == 0).sum(axis=1)
    assert shifted.shape == images.shape
    assert set(rows) == {0, 1, 2}


def test_crops_are_parts_of_the_image():
    images = np.arange(64, dtype="uint8").reshape(1, 8, 8, 1).repeat(50, axis=0)
    crops = random_crops(images, (3, 5), 0, np.random.default_rng(0))
    corners = crops[:, 0, 0, 0].astype(int)
    assert len(set(corners)) > 5
    for crop, corner in zip(crops, corners, strict=True):
        row, column = divmod(corner, 8)
        np.testing.assert_array_equal(crop, images[0, row : row + 3, column : column + 5])
    np.testing.assert_array_equal(centre_crops(images, (4, 2)), images[:, 2:6, 3:5])


def test_mirrored_and_brightened_images_and_nothing_else():
    generator = np.random.default_rng(0)
    images = generator.integers(50, 200, (300, 5, 6, 3), dtype="uint8")
    flipped = Augmentation(flip=True)(images, (5, 6), np.random.default_rng(1))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (flipped == images).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert 100 < mirrored.sum() < 200
    bright = Augmentation(brightness=0.1)(images, (5, 6), np.random.default_rng(1))
    change = bright.astype(int) - images
    assert bright.dtype == np.uint8
    assert (change == change[:, :1, :1, :1]).all()
    assert 20 < np.abs(change).max() <= 26 and change.min() < -20
    white = Augmentation(brightness=0.5)(np.full((9, 2, 2, 1), 250, "uint8"), (2, 2), generator)
    assert white.max() == 255
    np.testing.assert_array_equal(Augmentation()(images, (5, 6), generator), images)


def test_training_stops_early_with_the_best_weights_also_after_a_kill(tmp_path):
    """The validation loss is made up: the lowest is that of the second epoch."""
    losses = [1.0, 0.5, 0.7, 0.6, 0.9, 0.1]

    def train(folder, epochs):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        backup = Backup(folder, patience=2)
        first = backup.restore(model)

        class MadeUp(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.append(epoch)
                weights.append(model.get_weights()[0].item())
                logs["val_loss"] = losses[epoch]

        model.fit(
            np.ones((8, 1)),
            np.ones((8, 1)),
            epochs=first if backup.is_done else epochs,
            initial_epoch=first,
            callbacks=[MadeUp(), backup],
            verbose=0,
        )
        return model.get_weights()[0].item()

    seen, weights = [], []
    assert train(None, 6) == weights[1]
    assert seen == [0, 1, 2, 3]
    seen, weights = [], []
    train(str(tmp_path), 3)  # killed after the third epoch
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00002", "epoch-00003"]
    best = weights[1]
    assert train(str(tmp_path), 6) == best
    assert seen == [0, 1, 2, 3]
    assert train(str(tmp_path), 6) == best  # and after it had stopped
    assert seen == [0, 1, 2, 3]


def test_the_best_weights_survive_a_kill_before_older_ones_are_removed(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    backup = Backup(str(tmp_path), patience=5)
    backup.set_model(model)

    def end(epoch, weight, loss):
        model.set_weights([np.array([[weight]])])
        backup.on_epoch_begin(epoch)
        backup.on_epoch_end(epoch, {"loss": 1.0, "val_loss": loss})

    end(0, 1.0, 0.5)
    killed = types.SimpleNamespace(rmtree=lambda folder: sys.exit("killed"))
    monkeypatch.setattr(training, "shutil", killed)
    with pytest.raises(SystemExit):
        end(1, 2.0, 0.3)
    assert len(list(tmp_path.iterdir())) == 2
    resumed = Backup(str(tmp_path), patience=5)
    assert resumed.restore(model) == 2
    resumed.set_model(model)
    resumed.on_train_end()
    assert model.get_weights()[0].item() == 2.0


def test_learning_rates():
    linear = [float(learning_rates("linear", 0.1, 10)(step)) for step in range(11)]
    np.testing.assert_allclose(linear, np.linspace(0.1, 0, 11), atol=1e-7)
    one_cycle = [float(learning_rates("one_cycle", 0.1, 10)(step)) for step in range(11)]
    assert np.argmax(one_cycle) == 2
    assert max(one_cycle) == pytest.approx(0.1)
    assert one_cycle[0] == pytest.approx(0.01)
    assert (np.diff(one_cycle[2:]) < 0).all()
    assert one_cycle[-1] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    "settings", [{"schedule": "linaer"}, {"precision": "float16"}, {"precision": 3}]
)
def test_unknown_schedules_and_precisions_are_refused(settings, toys, tiny):
    with pytest.raises(UserError, match="must be"):
        fit(toys, tiny, **settings)


def test_mixed_precision_trains_float32_weights_and_scores_in_float32(toys, tiny):
    _, expected = fit(toys, tiny, precision="float32")
    detector, scores = fit(toys, tiny, precision="bfloat16")
    assert detector.history["loss"][-1] < detector.history["loss"][0]
    assert (scores != expected).any()
    np.testing.assert_allclose(scores, expected, rtol=0.1)
    network = detector.network((12, 12, 1), 3, "mixed_bfloat16")
    assert {variable.dtype for variable in network.variables} == {"float32"}
    outputs = network(np.zeros((2, 12, 12, 1), "float32"))
    dtypes = {keras.backend.standardize_dtype(output.dtype) for output in outputs.values()}
    assert dtypes == {"float32"}
    assert network.encoder.get_layer("convolution").compute_dtype == "bfloat16"
    assert network.encoder.get_layer("primary_capsules").convolution.compute_dtype == "bfloat16"
    assert network.encoder.get_layer("class_capsules").compute_dtype == "float32"


class Killed(BaseException):
    pass


def fit(toys, tiny, epochs=4, kill_after=None, callback=None, **settings):

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == kill_after:
                raise Killed

    images, labels = toys(120, 3, seed=0)
    detector = detectors.get(
        "capsnet", epochs=epochs, batch_size=40, **{"learning_rate": 0.01, **settings}, **tiny
    )
    scorer = detector.fit(
        images, labels, (images[:30], labels[:30]), images[:20], callbacks=(callback or Kill(),)
    )
    return detector, array(scorer(images)["re"])


def test_a_killed_training_goes_on_as_if_nothing_had_happened(toys, tiny, tmp_path):
    whole, expected = fit(toys, tiny, backup_dir=str(tmp_path / "whole"))
    with pytest.raises(Killed):
        fit(toys, tiny, backup_dir=str(tmp_path / "killed"), kill_after=2)
    (tmp_path / "killed" / "incomplete").mkdir()  # as a kill while writing leaves it
    resumed, scores = fit(toys, tiny, backup_dir=str(tmp_path / "killed"))
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert len(resumed.history["loss"]) == len(whole.history["loss"]) == 4
    np.testing.assert_allclose(resumed.history["loss"], whole.history["loss"], rtol=1e-4)


def test_same_seed_same_result_other_seed_another(toys, tiny):
    (_, first), (_, second), (_, other) = (fit(toys, tiny, 1, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_nan_stops_training_and_keeps_the_last_good_weights(toys, tiny, tmp_path):
    with pytest.raises(Killed):
        fit(toys, tiny, backup_dir=str(tmp_path), kill_after=1)
    (state,) = tmp_path.glob("epoch-*")
    with pytest.raises(UserError, match=r"Training diverged.*weights of epoch 1 are kept"):
        fit(toys, tiny, backup_dir=str(tmp_path), learning_rate=1e30)
    assert state.exists()


def test_divergence_without_a_backup_is_an_error_too(toys, tiny):
    with pytest.raises(UserError, match="Training diverged"):
        fit(toys, tiny, learning_rate=1e30)


def test_a_collapse_is_told_and_training_starts_once_more_also_after_a_kill(
    toys, tiny, tmp_path, caplog
):
    """Here with a learning rate that is far too large."""
    large = {"epochs": 6, "learning_rate": 0.4}
    caplog.set_level("INFO")
    whole, expected = fit(toys, tiny, backup_dir=str(tmp_path / "whole"), **large)
    collapse, again = whole.notes
    assert "After epoch 3 of 6 the accuracy on the training images was 0." in collapse
    assert again.startswith("Training was started once more, with learning rate 0.1 and stand")
    told = [line for line in caplog.messages if line.startswith("Warning")]
    assert told == [f"Warning: {collapse}", f"Warning: {again}"]
    assert whole.history["lengths_accuracy"][-1] > 0.5
    assert whole.finished_epochs == 6

    class KillLater(keras.callbacks.Callback):
        starts = 0

        def on_epoch_begin(self, epoch, logs=None):
            self.starts += epoch == 0
            if self.starts == 2 and epoch == 2:
                raise Killed

    with pytest.raises(Killed):
        fit(toys, tiny, backup_dir=str(tmp_path / "killed"), callback=KillLater(), **large)
    resumed, scores = fit(toys, tiny, backup_dir=str(tmp_path / "killed"), **large)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert resumed.notes == whole.notes


def test_the_watch_knows_what_guessing_reaches():
    labels = np.array([0] * 60 + [1] * 40)
    found = []

    def look(accuracy, epochs=10, answers=1):
        found.clear()
        CollapseWatch(labels, epochs, answers, found.append).look({"accuracy": accuracy})
        return bool(found)

    assert look([0.5, 0.6, 0.65])
    assert not look([0.5, 0.6, 0.75])
    assert not look([0.5, 0.6])  # too early
    assert look([0.3, 0.3, 0.3, 0.6, 0.9], epochs=20)
    assert not look([0.3, 0.3, 0.3, 0.8, 0.3], epochs=20)  # only that epoch is looked at
    assert not look([0.5, 0.6, 0.5], answers=2)
    CollapseWatch(labels, 10, 1, found.append).look({"loss": [1.0, 1.0, 1.0]})
    assert not found


@pytest.fixture(scope="module")
def uninterrupted():
    """The scores of a training that nothing disturbed."""
    return fit(toy_images, TINY)[1]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The state of a training that was killed after two epochs."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(Killed):
        fit(toy_images, TINY, backup_dir=str(folder), kill_after=2)
    return folder


def another(path):
    with np.load(path) as stored:
        values = [stored[name] for name in stored.files]
    np.savez(path, *values[:-1])


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (cut, "state.npz"),
        (flip, "state.npz"),
        (another, "state.npz"),
        (lambda path: path.unlink(), "state.npz"),
        (cut, "history.json"),
        (lambda path: path.write_text("[]"), "history.json"),
    ],
)
def test_a_damaged_state_is_removed_with_a_note_and_training_starts_afresh(
    damage, name, uninterrupted, killed, tmp_path
):
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    (state,) = tmp_path.glob("epoch-*")
    damage(state / name)
    resumed, scores = fit(toy_images, TINY, backup_dir=str(tmp_path))
    (note,) = resumed.notes
    assert f"{state} was damaged, so training started afresh" in note
    assert len(resumed.history["loss"]) == 4
    np.testing.assert_array_equal(scores, uninterrupted)
