"""CapsNet trained in other ways, as candidates for the default: see default_score.py."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from components.data.splits import Split
from models.capsnet import CapsNet
from models.detectors.capsnet import CapsNetDetector

EXTRA = 0.5  # number of additional images of a batch, as a share of it


class Plain(CapsNetDetector):
    """As it is, but the trained network is kept."""

    turns: keras.Model | None = None

    def network(self, *arguments: Any, **keywords: Any) -> CapsNet:
        """Keeps the last network that was made, which is the one that scores."""
        self.made = super().network(*arguments, **keywords)
        return self.made


class Pseudo(Plain):
    """A base for those that train with additional images, which belong to no class."""

    def additional(
        self, images: np.ndarray, labels: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """Images (b, H, W, K) that belong to no class."""
        raise NotImplementedError

    def fit_network(
        self, model: keras.Model, to_batch: Callable, *arguments: Any, **keywords: Any
    ) -> None:
        """Adds to each batch images whose capsules must be short; they are not reconstructed."""

        def with_pseudo(images, labels):
            inputs, targets = to_batch(images, labels)
            generator = np.random.default_rng(int(images[0].sum() * 1000))
            extra = self.additional(images, labels, generator)
            nothing = np.zeros((len(extra), targets["lengths"].shape[1]), "float32")
            count = len(images) + len(extra)
            weight = (np.arange(count) < len(images)).astype("float32")
            joined = np.concatenate([images, extra])
            target = np.concatenate([targets["lengths"], nothing])
            return (
                {"images": joined, "target": target},
                {"lengths": target, "reconstruction": joined},
                {"lengths": np.ones(count, "float32"), "reconstruction": weight},
            )

        super().fit_network(model, with_pseudo, *arguments, **keywords)


class Mixup(Pseudo):
    """Mixtures of two images of different classes, in nearly equal parts, belong to no class."""

    def additional(
        self, images: np.ndarray, labels: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """Mixtures."""
        partners = generator.permutation(len(images))
        chosen = np.flatnonzero(labels != labels[partners])[: int(len(images) * EXTRA)]
        share = generator.uniform(0.3, 0.7, (len(chosen), 1, 1, 1)).astype("float32")
        return share * images[chosen] + (1 - share) * images[partners[chosen]]


class CutMix(Pseudo):
    """Images whose upper, lower, left or right half is of another class belong to no class."""

    def additional(
        self, images: np.ndarray, labels: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """Images of two halves."""
        partners = generator.permutation(len(images))
        chosen = np.flatnonzero(labels != labels[partners])[: int(len(images) * EXTRA)]
        made = images[chosen].copy()
        others = images[partners[chosen]]
        height, width = images.shape[1:3]
        for place, side in enumerate(generator.integers(4, size=len(chosen))):
            part = (
                (slice(height // 2), slice(None)),
                (slice(height // 2, None), slice(None)),
                (slice(None), slice(width // 2)),
                (slice(None), slice(width // 2, None)),
            )[side]
            made[place][part] = others[place][part]
        return made


class TurnHead(Plain):
    """A head on the primary capsules that tells by which quarter turn an image was turned."""

    def network(self, *arguments: Any, **keywords: Any) -> CapsNet:
        """Adds the head to the training model."""
        network = super().network(*arguments, **keywords)
        if self.turns is None:
            primary = network.encoder.get_layer("primary_capsules").output
            capsules = keras.Input(primary.shape[1:])
            hidden = layers.Flatten()(capsules)
            hidden = layers.Dense(64, activation="relu")(hidden)
            self.turns = keras.Model(capsules, layers.Dense(4)(hidden), name="turn")
        plain = network.training_model

        def training_model():
            model = plain()
            images = model.input["images"]
            both = keras.Model(
                network.encoder.input,
                [
                    network.encoder.output,
                    network.encoder.get_layer("primary_capsules").output,
                ],
            )
            _, primary = both(images)
            return keras.Model(model.input, {**model.output, "turn": self.turns(primary)})

        network.training_model = training_model
        return network

    def losses(self) -> dict[str, Any]:
        """Adds the cross-entropy of the turns."""
        found = super().losses()
        found["loss"]["turn"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        found["loss_weights"]["turn"] = 0.1
        return found

    def fit_network(
        self, model: keras.Model, to_batch: Callable, *arguments: Any, **keywords: Any
    ) -> None:
        """Adds turned images, which count for the head alone."""

        def with_turned(images, labels):
            inputs, targets = to_batch(images, labels)
            generator = np.random.default_rng(int(images[0].sum() * 1000))
            count = int(len(images) * EXTRA)
            turns = 1 + np.arange(count) % 3
            chosen = generator.permutation(len(images))[:count]
            turned = np.stack([np.rot90(images[i], t) for i, t in zip(chosen, turns, strict=True)])
            joined = np.concatenate([images, turned])
            target = np.concatenate([targets["lengths"], targets["lengths"][chosen]])
            own = (np.arange(len(joined)) < len(images)).astype("float32")
            return (
                {"images": joined, "target": target},
                {
                    "lengths": target,
                    "reconstruction": joined,
                    "turn": np.concatenate([np.zeros(len(images), "int32"), turns]),
                },
                {"lengths": own, "reconstruction": own, "turn": np.ones(len(joined), "float32")},
            )

        super().fit_network(model, with_turned, *arguments, **keywords)


VARIANTS = {"plain": Plain, "mixup": Mixup, "cutmix": CutMix, "turn head": TurnHead}


def variant(name: str, detector: CapsNetDetector) -> CapsNetDetector:
    """The detector with the same settings, trained in another way."""
    settings = {field.name: getattr(detector, field.name) for field in dataclasses.fields(detector)}
    return VARIANTS[name](**{name: value for name, value in settings.items() if name != "history"})


def values(detector: Plain, split: Split) -> dict[str, np.ndarray]:
    """What a trained network says of the images of a split, float32 (N, ...) each.

    `capsules` (N, C, E); `errors` (N,), squared error over norm; `convolution` (N, 2 x channels)
    and `primary` (N, 2 x channels), mean and deviation over all positions; `patches` (N, D),
    the first convolution pooled to 4x4 positions; `hidden` (N, 3), squared difference between the
    image and its reconstruction in the activations of both and of the class capsules, each over
    the squared norm of the image's; `off` (N, 3 parts), these differences, pooled; `turn` (N,).
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
        rows.append(_values(network, probe, primary, detector.turns, images))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]} | {
        "labels": split.labels
    }


def _values(network, probe, primary, turns, images):
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
    if turns is not None:
        result["turn"] = -ops.log_softmax(turns(found[1]))[:, 0]
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
