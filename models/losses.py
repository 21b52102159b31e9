"""Losses of capsule networks."""

from typing import Any

import keras
from keras import ops


class _Float32Loss(keras.losses.Loss):
    """Base of the losses, which cast all values to float32, whatever dtype is given."""

    def __init__(self, name: str, **kwargs: Any):
        super().__init__(name=name, **{**kwargs, "dtype": "float32"})


@keras.saving.register_keras_serializable("capsad")
class MarginLoss(_Float32Loss):
    """Margin loss of the lengths of class capsules.

    `L_c = T_c max(0, m+ - |v_c|)^2 + lambda (1 - T_c) max(0, |v_c| - m-)^2`, summed over classes c.

    Args:
        positive_margin: m+, which the capsule of the true class should exceed.
        negative_margin: m-, below which all other capsules should stay.
        down_weighting: lambda, the weight of the absent classes.

    Call arguments:
        y_true: one-hot float tensor, shape (B, J).
        y_pred: capsule lengths, float tensor, shape (B, J), in [0, 1].

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, equation 4.
    """

    def __init__(
        self,
        positive_margin: float = 0.9,
        negative_margin: float = 0.1,
        down_weighting: float = 0.5,
        name: str = "margin_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.positive_margin = positive_margin
        self.negative_margin = negative_margin
        self.down_weighting = down_weighting

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the loss of each image, shape (B,)."""
        present = ops.square(ops.relu(self.positive_margin - y_pred))
        absent = ops.square(ops.relu(y_pred - self.negative_margin))
        return ops.sum(y_true * present + self.down_weighting * (1 - y_true) * absent, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {
            **super().get_config(),
            "positive_margin": self.positive_margin,
            "negative_margin": self.negative_margin,
            "down_weighting": self.down_weighting,
        }


@keras.saving.register_keras_serializable("capsad")
class SumOfSquares(_Float32Loss):
    """Squared difference, summed over the pixels.

    The mean over the pixels would be too small to have an effect.

    Call arguments:
        y_true: float tensor in [0, 1], shape (B, H, W, C).
        y_pred: float tensor in [0, 1], shape (B, H, W, C).

    Reference:
        Sabour, Frosst, Hinton 2017, arXiv 1710.09829, section 4.1.
    """

    def __init__(self, name: str = "sum_of_squares", **kwargs: Any):
        super().__init__(name=name, **kwargs)

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the loss of each image, shape (B,)."""
        return ops.sum(ops.square(y_true - y_pred), axis=tuple(range(1, len(y_true.shape))))


@keras.saving.register_keras_serializable("capsad")
class PixelCrossentropy(_Float32Loss):
    """Binary cross-entropy, summed over the pixels.

    It is minus the log-likelihood of a Bernoulli distribution, in nats.

    Call arguments:
        y_true: float tensor in [0, 1], shape (B, H, W, C).
        y_pred: float tensor in [0, 1], shape (B, H, W, C). It is clipped to [1e-6, 1 - 1e-6].

    Reference:
        Kingma, Welling 2014, arXiv 1312.6114, appendix C.1.
    """

    def __init__(self, name: str = "pixel_crossentropy", **kwargs: Any):
        super().__init__(name=name, **kwargs)

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the loss of each image, shape (B,)."""
        y_pred = ops.clip(y_pred, 1e-6, 1 - 1e-6)
        likelihood = y_true * ops.log(y_pred) + (1 - y_true) * ops.log(1 - y_pred)
        return -ops.sum(likelihood, axis=(1, 2, 3))


@keras.saving.register_keras_serializable("capsad")
class Value(_Float32Loss):
    """Takes the output itself as the loss, for a network that computes its own loss.

    Call arguments:
        y_true: tensor that is ignored.
        y_pred: float tensor, shape (B,).
    """

    def __init__(self, name: str = "value", **kwargs: Any):
        super().__init__(name=name, **kwargs)

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the loss of each image, shape (B,)."""
        return y_pred


@keras.saving.register_keras_serializable("capsad")
class SpreadLoss(_Float32Loss):
    """Spread loss `sum_{i != t} max(0, m - (a_t - a_i))^2`, where t is the true class.

    Args:
        margin: the margin m. Hinton et al. raise it from 0.2 to 0.9 during training. This is not
            needed here, because the output of the first layer is normalised.

    Call arguments:
        y_true: one-hot float tensor, shape (B, C).
        y_pred: activations, float tensor, shape (B, C), in [0, 1].

    Reference:
        Hinton, Sabour, Frosst 2018, Matrix capsules with EM routing, equation 3.
    """

    def __init__(self, margin: float = 0.9, name: str = "spread_loss", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.margin = margin

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the loss of each image, shape (B,)."""
        true = ops.sum(y_true * y_pred, axis=-1, keepdims=True)
        spread = ops.square(ops.relu(self.margin - (true - y_pred)))
        return ops.sum((1 - y_true) * spread, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "margin": self.margin}
