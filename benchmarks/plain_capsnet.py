"""CapsNet as one writes it with Keras's own layers: the yardstick of `throughput.py`."""

import keras
from keras import layers, ops

_EPSILON = 1e-7


def plain_capsnet(
    input_shape: tuple[int, int, int], num_classes: int
) -> tuple[keras.Model, keras.Model]:
    """Sabour's network: `Conv2D` primary capsules, prediction vectors, routing, decoder.

    Returns:
        The model of training, from (images, target), and that of scoring, from images, both to
        lengths (B, C) and reconstruction (B, H, W, K).
    """
    images = keras.Input(input_shape)
    target = keras.Input((num_classes,))
    features = layers.Conv2D(256, 9, activation="relu")(images)
    primary = layers.Reshape((-1, 8))(layers.Conv2D(256, 9, 2)(features))
    capsules = _DigitCapsules(num_classes, 16)(_squash(primary))
    lengths = ops.sqrt(ops.sum(ops.square(capsules), axis=-1) + _EPSILON)
    decoder = keras.Sequential(
        [
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(1024, activation="relu"),
            layers.Dense(input_shape[0] * input_shape[1] * input_shape[2], activation="sigmoid"),
            layers.Reshape(input_shape),
        ]
    )
    longest = ops.one_hot(ops.argmax(lengths, axis=-1), num_classes)
    return (
        keras.Model((images, target), (lengths, decoder(capsules * target[..., None]))),
        keras.Model(images, (lengths, decoder(capsules * longest[..., None]))),
    )


def _squash(vectors):
    squared = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return squared / (1 + squared) * vectors / ops.sqrt(squared + _EPSILON)


class _DigitCapsules(layers.Layer):
    def __init__(self, count, dim):
        super().__init__()
        self.count = count
        self.dim = dim

    def build(self, input_shape):
        """The transformation matrices."""
        _, inputs, dim = input_shape
        self.kernel = self.add_weight((inputs, dim, self.count, self.dim), "glorot_uniform")

    def call(self, capsules):
        """Three iterations of routing."""
        # B, I, J, E
        predictions = ops.einsum("bid,idje->bije", capsules, self.kernel)
        # B, I, J
        logits = ops.zeros_like(predictions[..., 0])
        for iteration in range(3):
            coupling = ops.softmax(logits, axis=-1)
            output = _squash(ops.einsum("bij,bije->bje", coupling, predictions))
            if iteration < 2:
                logits = logits + ops.einsum("bije,bje->bij", predictions, output)
        return output
