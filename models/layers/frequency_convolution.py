"""An exact convolution with a third of the multiplications, for processors without a GPU's."""

import functools
import math

import keras
import numpy as np
from keras import ops

# The kernel is transformed once a batch: images among which that is shared, for the comparison.
_BATCH = 100


def frequency_convolution(
    images: keras.KerasTensor, kernel: keras.KerasTensor, strides: int
) -> keras.KerasTensor:
    """Strided "valid" convolution (as networks call it: a correlation) in the frequency domain.

    A convolution of stride s is one of stride 1 over s x s times the channels (space to depth).
    That is a product in the frequency domain: the transform of a real image has few distinct
    frequencies, each a product of channels, and a complex product takes three real ones (Gauss).
    Altogether it is a bilinear algorithm `y = C ((A x) * (B k))`, with constant matrices A, B, C
    and a matrix product over the channels for `*`. Equal to the direct sum up to rounding.

    Args:
        images: float tensor, shape (B, H, W, C); H, W and C known.
        kernel: float tensor, shape (K, K, C, F), K at most H and W.
        strides: stride in both directions.

    Returns:
        Float tensor, shape (B, 1 + (H - K) // strides, 1 + (W - K) // strides, F).
    """
    _, height, width, channels = images.shape
    size, filters = kernel.shape[0], kernel.shape[-1]
    out = tuple(1 + (extent - size) // strides for extent in (height, width))
    taps = math.ceil(size / strides)
    # Extent of the image in cells of strides x strides pixels.
    rows, columns = (extent + taps - 1 for extent in out)
    depth = strides * strides * channels

    images = _fit(images, rows * strides, columns * strides)
    images = ops.reshape(images, (-1, rows, strides, columns, strides, channels))
    images = ops.transpose(images, (1, 3, 0, 2, 4, 5))
    # rows * columns, B * depth
    images = ops.reshape(images, (rows * columns, -1))

    missing = taps * strides - size
    kernel = ops.pad(kernel, ((0, missing), (0, missing), (0, 0), (0, 0)))
    kernel = ops.reshape(kernel, (taps, strides, taps, strides, channels, filters))
    kernel = ops.transpose(kernel, (0, 2, 1, 3, 4, 5))
    # taps * taps, depth * F
    kernel = ops.reshape(kernel, (taps * taps, depth * filters))

    from_image, from_kernel, to_output = _matrices((rows, columns), taps, out)
    products = len(from_image)
    # products, B, depth
    images = ops.reshape(ops.matmul(from_image, images), (products, -1, depth))
    # products, depth, F
    kernel = ops.reshape(ops.matmul(from_kernel, kernel), (products, depth, filters))
    # products, B * F
    product = ops.reshape(ops.matmul(images, kernel), (products, -1))
    # out, out, B, F
    output = ops.reshape(ops.matmul(to_output, product), (*out, -1, filters))
    return ops.transpose(output, (2, 0, 1, 3))


def frequency_is_cheaper(
    image_shape: tuple[int, int, int], kernel_size: int, filters: int, strides: int
) -> bool:
    """Whether it takes fewer multiply-adds than the direct sum, the kernel's transform included.

    Args:
        image_shape: height, width and channels of the image.
        kernel_size: height and width of the kernel.
        filters: channels of the output.
        strides: stride in both directions.
    """
    height, width, channels = image_shape
    out = [1 + (extent - kernel_size) // strides for extent in (height, width)]
    taps = math.ceil(kernel_size / strides)
    positions = math.prod(extent + taps - 1 for extent in out)
    depth = strides * strides * channels
    products = 1.5 * positions
    direct = math.prod(out) * kernel_size**2 * channels * filters
    frequency = products * (
        depth * filters
        + positions * depth
        + math.prod(out) * filters
        + taps * taps * depth * filters / _BATCH
    )
    return frequency < direct


def _fit(images, height, width):
    """Crops what the kernel never reaches and pads what only its zeros reach."""
    images = images[:, :height, :width, :]
    _, rows, columns, _ = images.shape
    return ops.pad(images, ((0, 0), (0, height - rows), (0, width - columns), (0, 0)))


@functools.cache
def _matrices(
    shape: tuple[int, int], taps: int, out: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A (P, rows * columns), B (P, taps * taps) and C (out * out, P), float32.

    In the frequency domain a correlation is `Y = X conj(K)`, and a real `y` is the real part of
    the sum of `Y e^(+i...)` over one of each pair of conjugate frequencies, weighted twice. Of a
    real frequency one product is needed, of a complex one Gauss's three:
    `(a + bi)(c + di) = (p1 - p3) + (p1 + p2) i` with
    `p1 = c (a + b)`, `p2 = a (d - c)`, `p3 = b (c + d)`.
    """
    rows, columns = shape
    row, column = np.divmod(np.arange(rows * columns), columns)
    # frequency, position
    angles = 2 * np.pi * (np.outer(row, row) / rows + np.outer(column, column) / columns)
    conjugate = (-row % rows) * columns + -column % columns
    first = np.arange(rows * columns) <= conjugate
    real = conjugate == np.arange(rows * columns)
    pairs = first & ~real

    tapped = (row < taps) & (column < taps)
    kept = (row < out[0]) & (column < out[1])
    cos, sin = np.cos(angles), np.sin(angles)
    # X = a + bi; conj(K) = c + di.
    a, b = cos[pairs], -sin[pairs]
    c, d = cos[pairs][:, tapped], sin[pairs][:, tapped]
    weight = 2 / (rows * columns)
    # Real part of Y (cos + i sin): p1 (cos - sin) - p2 sin - p3 cos.
    cos_out, sin_out = weight * cos[pairs][:, kept].T, weight * sin[pairs][:, kept].T
    real_out = cos[real][:, kept].T / (rows * columns)
    return (
        np.concatenate([cos[real], a + b, a, b]).astype("float32"),
        np.concatenate([cos[real][:, tapped], c, d - c, c + d]).astype("float32"),
        np.concatenate([real_out, cos_out - sin_out, -sin_out, -cos_out], axis=1).astype("float32"),
    )
