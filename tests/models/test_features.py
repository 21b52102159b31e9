import numpy as np
import pytest

from models import features
from models.features import DESCRIPTOR, LAST, PATCHES, compute_features, feature_network


@pytest.fixture(scope="module")
def network():
    return feature_network("mobilenet", "none", (64, 96, 3))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (70, 64, 96, 3), dtype="uint8")


@pytest.fixture
def computed(monkeypatch, network):
    """The number of images that the network is given."""
    counts = []
    real = network.predict_on_batch

    def counting(batch):
        counts.append(len(batch))
        return real(batch)

    monkeypatch.setattr(network, "predict_on_batch", counting)
    return counts


def test_shapes_and_units(network, images):
    found = compute_features(network, images[:3])
    assert found.read(LAST).shape == (3, 2, 3, 1024)
    assert found.read(PATCHES).shape == (3, 4, 6, 128)
    # Six vectors of length 1: mean and deviation of three maps of 256, 512 and 1024 channels.
    descriptor = found.read(DESCRIPTOR)
    parts = np.split(descriptor, np.cumsum([256, 256, 512, 512, 1024]), axis=1)
    lengths = np.array([np.linalg.norm(part, axis=1) for part in parts])
    # The deeper maps of random weights are almost 0.
    np.testing.assert_allclose(lengths[:2], 1, atol=1e-3)
    assert (lengths < 1.01).all()


@pytest.mark.parametrize("name", ["mobilenet", "resnet50"])
def test_any_size_of_images_has_features(name):
    """Networks halve odd sizes downwards or upwards."""
    found = feature_network(name, "none", (72, 100, 1))
    patches = found(np.zeros((1, 72, 100, 1), "float32"))[PATCHES]
    assert patches.shape == (1, *{"mobilenet": (4, 6), "resnet50": (5, 7)}[name], 128)


def test_what_is_kept_equals_what_is_computed_while_serving(network, images, tmp_path):
    kept = compute_features(network, images, str(tmp_path))
    again = network(images[10:13].astype("float32") / 255)
    for kind in (LAST, PATCHES, DESCRIPTOR):
        np.testing.assert_allclose(kept[10:13].read(kind), again[kind], rtol=1e-4, atol=1e-6)


def test_features_are_computed_once_and_equal_images_share_a_row(
    network, images, tmp_path, computed
):
    images[7] = images[3]
    first = compute_features(network, images, str(tmp_path))
    assert len(computed) == 3  # batches for 69 images
    assert first.rows[7] == first.rows[3]
    assert isinstance(first.arrays[LAST], np.memmap)
    again = compute_features(network, images, str(tmp_path))
    assert len(computed) == 3
    np.testing.assert_array_equal(again.read(DESCRIPTOR), first.read(DESCRIPTOR))
    in_memory = compute_features(network, images)
    np.testing.assert_array_equal(in_memory.read(PATCHES), first.read(PATCHES))
    images[0] += 1
    compute_features(network, images, str(tmp_path))
    assert len(computed) == 9


def test_a_killed_computation_goes_on(network, images, tmp_path, computed, monkeypatch):
    monkeypatch.setattr(features, "_SECONDS", 0.0)  # It notes each batch that is done.
    real = network.predict_on_batch

    def killed(batch):
        if len(computed) == 2:
            raise KeyboardInterrupt
        return real(batch)

    with monkeypatch.context() as patched:
        patched.setattr(network, "predict_on_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            compute_features(network, images, str(tmp_path))
    found = compute_features(network, images, str(tmp_path))
    assert len(computed) == 3
    np.testing.assert_array_equal(found.read(LAST), compute_features(network, images).read(LAST))
    assert [path.suffix for path in tmp_path.iterdir()] == [""]


def test_another_network_or_code_has_features_of_its_own(network, images, tmp_path, monkeypatch):
    compute_features(network, images[:2], str(tmp_path))
    other = feature_network("mobilenet", "none", (64, 96, 3))
    compute_features(other, images[:2], str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


def test_progress_is_told(network, images, caplog):
    caplog.set_level("DEBUG", "capsad.progress")
    compute_features(network, images[:40])
    told = [record.progress for record in caplog.records]
    assert told == [("features", 32, 40), ("features", 40, 40)]
    assert caplog.messages[-1] == "Features of 40 of 40 images"


@pytest.mark.parametrize("damage", ["cut", "gone", "another"])
@pytest.mark.parametrize("is_complete", [True, False])
def test_damaged_features_are_computed_again(damage, is_complete, network, images, tmp_path):
    expected = compute_features(network, images[:3], str(tmp_path)).read(LAST)
    (folder,) = tmp_path.iterdir()
    if not is_complete:
        folder = folder.rename(f"{folder}.incomplete")
    path = folder / "last.npy"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "gone":
        path.unlink()
    else:
        np.save(path, np.zeros((3, 5), "float32"))
    found = compute_features(network, images[:3], str(tmp_path)).read(LAST)
    np.testing.assert_array_equal(found, expected)
