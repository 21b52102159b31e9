"""Base of the layers that compute in float32."""

from typing import Any

import keras


class Float32Layer(keras.layers.Layer):
    """Layer whose inputs, weights and outputs are float32, whatever the dtype policy says.

    Lengths, routing and scores need the range and the digits of float32. float16 has overflow
    from 65,504 on and no squares of values below 0.0002, and bfloat16 has only two to three digits,
    with which different scores become equal. A dtype that is given is ignored.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
