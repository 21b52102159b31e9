"""All geometric transformations of Golan and El-Yaniv, joined along the batch axis."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape


@keras.saving.register_keras_serializable("capsad")
class GeometricTransformations(Float32Layer):
    """Flips images left to right, rotates them by quarter turns and, with `shifts`, moves them.

    Transformation 0 is the identity. Rotations are counter-clockwise. Pixels that a move leaves
    empty are filled by reflection, which repeats the outermost pixels (`c b a | a b c`).

    Args:
        shifts: whether to move images by a quarter of their size in each direction, too. This gives
            72 transformations instead of 8.

    Call arguments:
        images: float tensor, shape (B, H, W, K), where H = W.

    Returns:
        Float tensor, shape (T * B, H, W, K): all images after transformation 0, then all images
        after transformation 1, and so on.

    Reference:
        Golan, El-Yaniv 2018, arXiv 1805.10917, section 4; the filling is that of their code.
    """

    def __init__(self, shifts: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.shifts = shifts
        moves = (0, 1, -1) if shifts else (0,)
        self.transformations = [
            (flip, down, right, turns)
            for flip in (False, True)
            for down in moves
            for right in moves
            for turns in range(4)
        ]

    @property
    def count(self) -> int:
        """The number of transformations T."""
        return len(self.transformations)

    def transform(
        self, images: np.ndarray | keras.KerasTensor, index: int
    ) -> np.ndarray | keras.KerasTensor:
        """Applies one transformation to images (B, H, W, K), an array or a tensor."""
        flip, down, right, turns = self.transformations[index]
        library = np if isinstance(images, np.ndarray) else ops
        if flip:
            images = library.flip(images, axis=2)
        size = images.shape[1]
        for axis, move in ((1, down), (2, right)):
            if move:
                images = library.take(images, _moved(size, move * (size // 4)), axis=axis)
        if turns in (1, 3):
            images = library.transpose(images, (0, 2, 1, 3))
        if turns:
            images = library.flip(images, axis={1: 1, 2: (1, 2), 3: 2}[turns])
        return images

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Applies all transformations."""
        return ops.concatenate([self.transform(images, index) for index in range(self.count)])

    def mean_log_probability(
        self, logits: keras.KerasTensor, num_classes: int
    ) -> keras.KerasTensor:
        """Computes the mean of `log p(c, t | t(x))` over the transformations t.

        Args:
            logits: logits for the output of `call`, float tensor, shape (T * B, C * T).
            num_classes: number of classes C.

        Returns:
            Float32 tensor, shape (B, C), with no positive values.
        """
        log_probability = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        # T, B, C, T
        log_probability = ops.reshape(log_probability, (self.count, -1, num_classes, self.count))
        # Takes the diagonal of T x T: the probability of the transformation that was applied.
        done = ops.reshape(np.eye(self.count, dtype="float32"), (self.count, 1, 1, self.count))
        return ops.sum(log_probability * done, axis=(0, 3)) / self.count

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (T * B, H, W, K)."""
        batch = input_shape[0] and input_shape[0] * self.count
        return batch, *input_shape[1:]

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "shifts": self.shifts}


def _moved(size: int, by: int) -> np.ndarray:
    """Places, int (size,), of the pixels that a move by `by` pixels brings to places 0, 1, ..."""
    start = abs(by)
    return np.pad(np.arange(size), start, mode="symmetric")[start - by :][:size]
