"""The decision function of a one-class support vector machine."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape
from models.layers.squash import vector_length


@keras.saving.register_keras_serializable("capsad")
class RbfOneClass(Float32Layer):
    """Computes `f(x) = sum_i a_i exp(-gamma |x - c_i|^2) + b`, with x scaled to unit length.

    The centres c are the support vectors of an exact machine or the landmarks of Nystroem's
    approximation. The linear map and the hyperplane of the approximation are combined in the
    coefficients a.

    Args:
        centres: number n of centres.
        gamma: positive parameter of the kernel.

    Call arguments:
        features: float tensor, shape (B, D).

    Returns:
        Float tensor, shape (B,), positive inside the boundary: higher = more normal.

    Reference:
        Schoelkopf, Platt, Shawe-Taylor, Smola, Williamson 2001, Estimating the support of a
        high-dimensional distribution.
    """

    def __init__(self, centres: int, gamma: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.centres = centres
        self.gamma = gamma

    def build(self, input_shape: Shape) -> None:
        """Creates the centres (n, D), the coefficients (n,) and the intercept (1,)."""

        def weight(name: str, *shape: int | None) -> keras.Variable:
            return self.add_weight(name=name, shape=shape, initializer="zeros", trainable=False)

        self.centre = weight("centre", self.centres, input_shape[-1])
        self.coefficients = weight("coefficients", self.centres)
        self.intercept = weight("intercept", 1)

    def set_machine(
        self,
        centre: np.ndarray,
        coefficients: np.ndarray,
        intercept: float,
    ) -> None:
        """Stores a fitted machine: centres (n, D), coefficients (n,) and an intercept."""
        self.centre.assign(centre)
        self.coefficients.assign(coefficients)
        self.intercept.assign([intercept])

    def call(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Scales the features and sums the kernels."""
        features = features / ops.maximum(vector_length(features, keepdims=True), 1e-12)
        # B, n
        squared = (
            ops.sum(ops.square(features), axis=-1, keepdims=True)
            - 2 * ops.matmul(features, ops.transpose(self.centre))
            + ops.sum(ops.square(self.centre), axis=-1)
        )
        kernel = ops.exp(-self.gamma * ops.maximum(squared, 0.0))
        return ops.matmul(kernel, self.coefficients) + self.intercept[0]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape, (B,)."""
        return input_shape[:1]

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "centres": self.centres, "gamma": self.gamma}
