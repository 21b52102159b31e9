"""Features of images that a frozen network computes once, and a store that keeps them."""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from models import backbones
from models.backbones import MAPS, backbone
from models.files import publish, write_whole
from models.layers import imagenet_scaling
from models.progress import report, tell
from models.training import use_xla

LAST, PATCHES, DESCRIPTOR = "last", "patches", "descriptor"
_PATCH_DIM = 128  # values of a patch after the random projection
_BATCH_SIZE = 32  # Feature maps of photographs are large.
_SECONDS = 5.0  # between two lines of progress, and between two notes of what is done
_DONE = "done.json"


def feature_network(name: str, weights: str, input_shape: tuple[int, int, int]) -> keras.Model:
    """A frozen network that computes three kinds of features of an image.

    * `last`, shape (B, H / 32, W / 32, D): the last feature map.
    * `patches`, shape (B, H / 16, W / 16, 128): the two feature maps before it, each averaged over
      3x3 neighbours, joined at the coarser one's size, and projected at random.
    * `descriptor`, shape (B, P): mean and standard deviation of each channel of all three feature
      maps. Each of these six vectors has length 1, so that no map outweighs the others.

    Args:
        name: name of the backbone, see `models.backbones`.
        weights: as for `backbone`.
        input_shape: height, width and channels (H, W, K) of the images, K = 1 or 3.

    Returns:
        Model from float images in [0, 1], shape (B, H, W, K), to a dict of float32 features. Its
        weights are not trainable.

    Raises:
        UserError: as `backbone` does.

    Reference:
        Roth et al. 2022, arXiv 2106.08265, section 3.1, for the patches.
    """
    network = backbone(name, weights, input_shape)
    fine, coarse, last = (network.output[key] for key in MAPS)
    near_fine, near_coarse = (
        keras.layers.AveragePooling2D(3, 1, "same")(found) for found in (fine, coarse)
    )
    # Some networks halve an odd size downwards, others upwards.
    halves = zip(near_fine.shape[1:3], near_coarse.shape[1:3], strict=True)
    padding = "valid" if any(size > 2 * half for size, half in halves) else "same"
    near_fine = keras.layers.AveragePooling2D(2, padding=padding)(near_fine)
    joined = keras.layers.Concatenate()([near_fine, near_coarse])
    projection = keras.layers.Dense(_PATCH_DIM, use_bias=False, name="projection")
    patches = projection(joined)
    # One projection for all seeds, so that features can be shared.
    shape = (joined.shape[-1], _PATCH_DIM)
    values = np.random.default_rng(0).standard_normal(shape) / np.sqrt(_PATCH_DIM)
    projection.set_weights([values.astype("float32")])
    moments = [
        of(found, axis=(1, 2)) for found in (fine, coarse, last) for of in (ops.mean, ops.std)
    ]
    descriptor = keras.layers.Concatenate()(
        [keras.layers.UnitNormalization(axis=-1)(moment) for moment in moments]
    )
    outputs = {LAST: last, PATCHES: patches, DESCRIPTOR: descriptor}
    features = keras.Model(network.input, outputs, name="features")
    features.trainable = False
    return features


@dataclass(frozen=True)
class Features:
    """Features of images, of which several may share a row."""

    arrays: dict[str, np.ndarray]
    """Kind of features -> float32 array, shape (M, ...), which may be memory-mapped."""
    rows: np.ndarray
    """int, shape (N,): row of each image."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Any) -> "Features":
        return replace(self, rows=self.rows[chosen])

    def read(self, kind: str) -> np.ndarray:
        """Returns the features of one kind, float32 array, shape (N, ...), in memory."""
        return np.asarray(self.arrays[kind][self.rows])


def compute_features(
    network: keras.Model, images: np.ndarray, folder: str | None = None
) -> Features:
    """Computes the features of images, or takes them from where they were kept.

    Equal images share a row. What is kept is found by the images and the network alone. A killed
    computation continues where it was.

    Args:
        network: model that `feature_network` returns.
        images: uint8 array, shape (N, H, W, K).
        folder: folder in which features are kept, as files that are read as they are needed.
            `None` keeps them in memory.
    """
    digests = np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in images])
    unique, places, rows = np.unique(digests, return_index=True, return_inverse=True)
    network.jit_compile = use_xla(1)

    def features_of(chosen: np.ndarray) -> dict[str, np.ndarray]:
        # Batches of one size need one compilation.
        batch = images[np.resize(chosen, _BATCH_SIZE)].astype("float32") / 255
        found = network.predict_on_batch(batch)
        return {key: np.asarray(value)[: len(chosen)] for key, value in found.items()}

    shapes = {key: tuple(value.shape[1:]) for key, value in network.output.items()}
    if folder is None:
        arrays = {key: np.empty((len(places), *of), "float32") for key, of in shapes.items()}
        _fill(arrays, features_of, places, 0, lambda done: None)
        return Features(arrays, rows)
    kept = Path(folder, _identity(network, unique))
    return Features(_kept(kept, shapes, features_of, places), rows)


def _kept(
    target: Path,
    shapes: dict[str, tuple[int, ...]],
    features_of: Callable[[np.ndarray], dict[str, np.ndarray]],
    places: np.ndarray,
) -> dict[str, np.ndarray]:
    """The arrays in the folder `target`, which is made if it does not exist, or is damaged."""
    shapes = {key: (len(places), *shape) for key, shape in shapes.items()}
    if target.is_dir():
        with contextlib.suppress(OSError, ValueError):
            return _opened(target, shapes, "r")
        tell(f"Warning: The features in {target} were damaged, so they are computed again.")
        shutil.rmtree(target)
    incomplete = target.with_name(f"{target.name}.incomplete")
    try:
        done = int(json.loads((incomplete / _DONE).read_text()))
        _opened(incomplete, shapes, "r")  # which refuses a cut file, while r+ would enlarge it
        arrays = _opened(incomplete, shapes, "r+")
    except (OSError, ValueError):  # There is none, or it is damaged.
        shutil.rmtree(incomplete, ignore_errors=True)
        incomplete.mkdir(parents=True)
        done, arrays = 0, _opened(incomplete, shapes, "w+")

    def keep(done: int) -> None:
        for array in arrays.values():
            array.flush()
        write_whole(incomplete / _DONE, json.dumps(done))

    _fill(arrays, features_of, places, done, keep)
    publish(incomplete, target)
    return _opened(target, shapes, "r")


def _opened(folder: Path, shapes: dict[str, tuple[int, ...]], mode: str) -> dict[str, Any]:
    """Memory-mapped arrays of the given shapes.

    Raises:
        OSError: if a file is missing.
        ValueError: if a file holds something else.
    """
    arrays = {
        key: np.lib.format.open_memmap(folder / f"{key}.npy", mode, "float32", shape)
        for key, shape in shapes.items()
    }
    if any(arrays[key].shape != shape for key, shape in shapes.items()):
        raise ValueError(f"The arrays in {folder} have other shapes.")
    return arrays


def _fill(
    arrays: dict[str, np.ndarray],
    features_of: Callable[[np.ndarray], dict[str, np.ndarray]],
    places: np.ndarray,
    done: int,
    keep: Callable[[int], None],
) -> None:
    """Fills the rows of the arrays from row `done`, and now and then calls `keep` with `done`."""
    told = time.monotonic()
    for start in range(done, len(places), _BATCH_SIZE):
        chosen = places[start : start + _BATCH_SIZE]
        for key, value in features_of(chosen).items():
            arrays[key][start : start + len(chosen)] = value
        done, line = start + len(chosen), None
        if time.monotonic() - told > _SECONDS or done == len(places):
            told = time.monotonic()
            keep(done)
            line = f"Features of {done} of {len(places)} images"
        report("features", done, len(places), line)


def _identity(network: keras.Model, digests: np.ndarray) -> str:
    """A name for features: it changes with the code, the network and the images."""
    identity = hashlib.sha256(f"{keras.__version__} {network.input.shape}".encode())
    for file in (__file__, backbones.__file__, imagenet_scaling.__file__):
        identity.update(Path(file).read_bytes())
    for weights in network.get_weights():
        identity.update(np.ascontiguousarray(weights).tobytes())
    identity.update("".join(digests).encode())
    return identity.hexdigest()[:24]
