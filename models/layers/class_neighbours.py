"""Distance to stored images of the class that an image is taken for."""

import keras
import numpy as np
from keras import ops

from models.layers.squash import vector_length


@keras.saving.register_keras_serializable("capsad")
class ClassNeighbours(keras.layers.Layer):
    """Mean cosine distance to the nearest stored images of the predicted class.

    Args:
        num_classes: number of classes C.
        per_class: stored images n of each class, at most.
        neighbours: how many of the nearest count; all, where a class has fewer.

    Call arguments:
        images: float tensor, shape (B, H, W, K).
        weights: float tensor, shape (B, C), whose largest is the predicted class's.

    Returns:
        Float tensor, shape (B,), in [0, 2], higher = farther.

    Reference:
        Sun, Ming, Zhu, Li 2022, Out-of-distribution detection with deep nearest neighbors,
        arXiv 2204.06507; within the predicted class and on pixels is ours.
    """

    def __init__(self, num_classes, per_class, neighbours=5, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.per_class = per_class
        self.neighbours = neighbours

    def build(self, images_shape, weights_shape=None) -> None:
        """Creates the bank, (C, n, D), and what marks its empty places, (C, n)."""
        places = (self.num_classes, self.per_class)
        self.bank = self.add_weight(
            name="bank",
            shape=(*places, int(np.prod(images_shape[1:]))),
            initializer="zeros",
            trainable=False,
        )
        self.filled = self.add_weight(
            name="filled", shape=places, initializer="zeros", trainable=False
        )

    def remember(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Stores the first `per_class` images of each class.

        Args:
            images: float, shape (N, H, W, K), as those that are scored.
            labels: int, shape (N,), values 0 to C - 1, every class present.
        """
        bank, filled = np.zeros(self.bank.shape, "float32"), np.zeros(self.filled.shape, "float32")
        for label in range(self.num_classes):
            own = images[labels == label][: self.per_class].reshape(-1, bank.shape[-1])
            bank[label, : len(own)] = ops.convert_to_numpy(_unit(ops.convert_to_tensor(own)))
            filled[label, : len(own)] = 1
        self.bank.assign(bank)
        self.filled.assign(filled)

    def call(self, images, weights) -> keras.KerasTensor:
        """Compares with the whole bank, of which only the predicted class counts."""
        images = _unit(ops.reshape(images, (-1, self.bank.shape[-1])))
        # B, C * n
        bank = ops.reshape(self.bank, (-1, self.bank.shape[-1]))
        cosine = ops.matmul(images, ops.transpose(bank))
        predicted = ops.one_hot(ops.argmax(weights, axis=-1), self.num_classes)
        counts = ops.reshape(predicted[:, :, None] * self.filled, (-1, bank.shape[0]))
        count = min(self.neighbours, bank.shape[0])
        nearest, _ = ops.top_k(ops.where(counts > 0, cosine, -2.0), count)
        # B, neighbours: a class with fewer images leaves some at -2
        found = ops.cast(nearest >= -1.5, nearest.dtype)
        return 1.0 - ops.sum(nearest * found, axis=-1) / ops.sum(found, axis=-1)

    def compute_output_shape(self, images_shape, weights_shape=None) -> tuple:
        """Shape (B,)."""
        return images_shape[:1]

    def get_config(self) -> dict:
        """Every argument of the constructor."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "per_class": self.per_class,
            "neighbours": self.neighbours,
        }


def _unit(vectors):
    return vectors / ops.maximum(vector_length(vectors, keepdims=True), 1e-12)
