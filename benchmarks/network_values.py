"""What a trained CapsNet says of images, on many levels: see default_score.py."""

from typing import Any

import keras
import numpy as np
from keras import ops

from components.data.splits import Split
from models.capsnet import CapsNet
from models.detectors.capsnet import CapsNetDetector


class Kept(CapsNetDetector):
    """The detector as it is, but the trained network is kept."""

    def network(self, *arguments: Any, **keywords: Any) -> CapsNet:
        """Keeps the last network that was made, which is the one that scores."""
        self.made = super().network(*arguments, **keywords)
        return self.made


def values(detector: Kept, split: Split) -> dict[str, np.ndarray]:
    """What a trained network says of the images of a split, float32 (N, ...) each.

    `capsules` (N, C, E); `errors` (N,), squared error over norm; `convolution` (N, 2 x channels)
    and `primary` (N, 2 x channels), mean and deviation over all positions; `patches` (N, D),
    the first convolution pooled to 4x4 positions; `hidden` (N, 3), squared difference between the
    image and its reconstruction in the activations of both and of the class capsules, each over
    the squared norm of the image's; `off` (N, 3 parts), these differences, pooled.
    """
    network = detector.made
    encoder = network.encoder
    primary = encoder.get_layer("primary_capsules")
    probe = keras.Model(
        encoder.input, [encoder.get_layer("convolution").output, primary.output, encoder.output]
    )
    rows: list[dict[str, np.ndarray]] = []
    for start in range(0, len(split.images), 200):
        images = split.images[start : start + 200].astype("float32") / 255
        rows.append(_values(network, probe, primary, images))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]} | {
        "labels": split.labels
    }


def _values(network, probe, primary, images):
    lengths = network(images)
    again = lengths["reconstruction"]
    found = probe(images)
    pooled = _pooled(found, primary)
    other = probe(again)
    differences = [ops.reshape(a - b, (len(images), -1)) for a, b in zip(found, other, strict=True)]
    own = [ops.reshape(a, (len(images), -1)) for a in found]
    hidden = [
        ops.sum(d**2, axis=1) / ops.maximum(ops.sum(o**2, axis=1), 1e-6)
        for d, o in zip(differences, own, strict=True)
    ]
    pixels = images.reshape(len(images), -1)
    off = ops.reshape(again, pixels.shape) - pixels
    result = {
        "capsules": found[2],
        "errors": ops.sum(off**2, axis=1) / np.maximum(np.linalg.norm(pixels, axis=1), 1 / 255),
        "pixels": pixels,
        "hidden": ops.stack(hidden, axis=1),
        **pooled,
        **{f"off {name}": pooled[name] - value for name, value in _pooled(other, primary).items()},
        "off capsules": differences[2],
    }
    return {name: np.asarray(value, "float32") for name, value in result.items()}


def _pooled(found, primary):
    convolved, capsules, _ = found
    # B, positions, types * dim
    wide = ops.reshape(capsules, (len(capsules), -1, primary.capsule_types * primary.capsule_dim))
    patches = ops.average_pool(convolved, 5, 5)
    return {
        "convolution": ops.concatenate(
            [ops.mean(convolved, (1, 2)), ops.std(convolved, (1, 2))], axis=1
        ),
        "primary": ops.concatenate([ops.mean(wide, 1), ops.std(wide, 1)], axis=1),
        "patches": ops.reshape(patches, (len(capsules), -1)),
        "primary lengths": ops.sqrt(ops.sum(ops.square(capsules), axis=-1)),
    }
