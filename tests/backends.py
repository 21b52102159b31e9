"""What tests need to run on every backend of Keras."""

import importlib.util

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()
INSTALLED = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]

tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="a graph of TensorFlow")


def array(tensor):
    """A tensor as an array, of whatever dtype NumPy has for it."""
    return keras.ops.convert_to_numpy(tensor)


def gradients(loss, inputs, variables=()):
    """Gradients of the scalar `loss(*inputs)` by the arrays `inputs` and Keras variables.

    What the loss does not depend on has gradient 0.
    """
    inputs = [keras.ops.convert_to_tensor(value) for value in inputs]
    found = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}[BACKEND](
        loss, inputs, list(variables)
    )
    return [
        np.zeros(value.shape, "float32") if gradient is None else array(gradient)
        for gradient, value in zip(found, [*inputs, *variables], strict=True)
    ]


def _by_tensorflow(loss, inputs, variables):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(*inputs)
    return tape.gradient(value, [*inputs, *(variable.value for variable in variables)])


def _by_jax(loss, inputs, variables):
    import jax

    def stateless(inputs, values):
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return loss(*inputs)

    values = [variable.value for variable in variables]
    by_inputs, by_variables = jax.grad(stateless, argnums=(0, 1))(inputs, values)
    return [*by_inputs, *by_variables]


def _by_torch(loss, inputs, variables):
    import torch

    inputs = [value.requires_grad_() for value in inputs]
    values = [*inputs, *(variable.value for variable in variables)]
    value = loss(*inputs)
    if not value.requires_grad:
        return [None] * len(values)
    return torch.autograd.grad(value, values, allow_unused=True)
