"""Exact convolution with a third of the multiplications, for machines without a GPU or TPU."""

import functools
import math

import keras
import numpy as np
from keras import ops

_REAL_POINTS = np.array([0, np.inf, 0.58, -0.58, 1 / 0.58, -1 / 0.58])
_ALL_REAL_POINTS = range(9, 41)  # coefficients; with more of them, powers of 1 / 0.58 are too large


def frequency_convolution(
    images: keras.KerasTensor,
    kernel: keras.KerasTensor,
    strides: int,
    values: keras.KerasTensor | None = None,
) -> keras.KerasTensor:
    """Computes a strided "valid" convolution (strictly, a correlation) in the frequency domain.

    A convolution of stride s equals one of stride 1 over s x s times as many channels (space to
    depth). This is a product of polynomials. It is computed from their values at as many points as
    the product has coefficients, with one multiplication at each point. At roots of unity, the
    values are the frequencies of a Fourier transform. A complex multiplication takes three real
    ones (Gauss), so some real points are used as well, which take only one (Toom, Cook).
    In total, this is a bilinear algorithm `y = C ((A x) * (B k))`, where A, B and C are constant
    matrices and `*` is a matrix product over the channels. The result equals the direct sum up to
    rounding, which is amplified: the error is about 3e-6 of the largest value in float32, and 4e-2
    in bfloat16.

    Args:
        images: float tensor, shape (B, H, W, C), where H, W and C are known.
        kernel: tensor of the same dtype, shape (K, K, C, F), where K is at most H and at most W.
        strides: stride in both directions.
        values: what `kernel_values` returns, if it was computed before.

    Returns:
        Tensor of the same dtype, shape (B, 1 + (H - K) // strides, 1 + (W - K) // strides, F).
    """
    _, height, width, channels = images.shape
    filters = kernel.shape[-1]
    taps, out, (rows, columns) = _cells((height, width), kernel.shape[0], strides)
    from_image, _, to_output = _matrices((rows, columns), taps, out)
    if values is None:
        values = kernel_values(kernel, (height, width), strides)
    products, depth, _ = values.shape

    images = _fit(images, rows * strides, columns * strides)
    images = ops.reshape(images, (-1, rows, strides, columns, strides, channels))
    images = ops.transpose(images, (1, 3, 0, 2, 4, 5))
    # rows * columns, B * depth
    images = ops.reshape(images, (rows * columns, -1))
    # products, B, depth
    images = ops.matmul(ops.cast(from_image, images.dtype), images)
    images = ops.reshape(images, (products, -1, depth))
    # products, B * F
    product = ops.reshape(ops.matmul(images, values), (products, -1))
    # out, out, B, F
    output = ops.matmul(ops.cast(to_output, product.dtype), product)
    output = ops.reshape(output, (*out, -1, filters))
    return ops.transpose(output, (2, 0, 1, 3))


def kernel_values(
    kernel: keras.KerasTensor, image_size: tuple[int, int], strides: int
) -> keras.KerasTensor:
    """Computes the values of a kernel at all points, which do not depend on the images.

    Args:
        kernel: float tensor, shape (K, K, C, F).
        image_size: height and width of the images.
        strides: stride in both directions.

    Returns:
        Tensor of the same dtype, shape (products, strides * strides * C, F).
    """
    size, _, channels, filters = kernel.shape
    taps, out, cells = _cells(image_size, size, strides)
    missing = taps * strides - size
    kernel = ops.pad(kernel, ((0, missing), (0, missing), (0, 0), (0, 0)))
    kernel = ops.reshape(kernel, (taps, strides, taps, strides, channels, filters))
    kernel = ops.transpose(kernel, (0, 2, 1, 3, 4, 5))
    # taps * taps, depth * F
    kernel = ops.reshape(kernel, (taps * taps, -1))
    _, from_kernel, _ = _matrices(cells, taps, out)
    # products, depth * F
    values = ops.matmul(ops.cast(from_kernel, kernel.dtype), kernel)
    return ops.reshape(values, (len(from_kernel), strides * strides * channels, filters))


def multiply_adds(
    image_shape: tuple[int, int, int], kernel_size: int, filters: int, strides: int
) -> tuple[float, float]:
    """Counts the multiply-adds for each image in a batch of 100.

    Args:
        image_shape: height, width and channels of the image.
        kernel_size: height and width of the kernel.
        filters: number of channels of the output.
        strides: stride in both directions.

    Returns:
        The numbers for the direct sum and for `frequency_convolution`.
    """
    height, width, channels = image_shape
    taps, out, cells = _cells((height, width), kernel_size, strides)
    depth = strides * strides * channels
    from_image, from_kernel, to_output = _matrices(cells, taps, out)
    return (
        math.prod(out) * kernel_size**2 * channels * filters,
        from_image.size * depth
        + len(from_image) * depth * filters
        + to_output.size * filters
        + from_kernel.size * depth * filters / 100,
    )


def _cells(
    image_size: tuple[int, int], kernel_size: int, strides: int
) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Returns, in cells of strides x strides pixels, the size of the kernel, output and image."""
    taps = math.ceil(kernel_size / strides)
    height, width = (1 + (extent - kernel_size) // strides for extent in image_size)
    return taps, (height, width), (height + taps - 1, width + taps - 1)


def _fit(images: keras.KerasTensor, height: int, width: int) -> keras.KerasTensor:
    """Crops pixels that the kernel never reaches, and pads pixels that only its zeros reach."""
    _, rows, columns, _ = images.shape
    if (rows, columns) == (height, width):
        return images
    images = images[:, :height, :width, :]
    missing = (0, max(0, height - rows)), (0, max(0, width - columns))
    return ops.pad(images, ((0, 0), *missing, (0, 0)))


@functools.cache
def _matrices(
    shape: tuple[int, int], taps: int, out: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns float32 A (P, rows * columns), B (P, taps * taps) and C (out * out, P).

    Complex points come in conjugate pairs, and only one point of each pair is needed. A complex
    product takes three real ones: `(a + bi)(c + di) = (p1 - p3) + (p1 + p2) i` with
    `p1 = c (a + b)`, `p2 = a (d - c)`, `p3 = b (c + d)`.
    """
    (row_points, row_conjugates), (column_points, column_conjugates) = map(_points, shape)
    image = np.kron(*(np.linalg.inv(_powers(p, len(p))).T for p in (row_points, column_points)))
    kernel = np.kron(_powers(row_points, taps), _powers(column_points, taps))
    output = np.kron(_powers(row_points, out[0]), _powers(column_points, out[1])).T

    index = np.arange(len(image))
    conjugates = (row_conjugates[:, None] * len(column_points) + column_conjugates).ravel()
    real, pairs = index == conjugates, index < conjugates
    a, b = image[pairs].real, image[pairs].imag
    c, d = kernel[pairs].real, kernel[pairs].imag
    # The sum over a pair is real: 2 Re((p + qi) Y) = 2 (p1 (p - q) - p2 q - p3 p).
    p, q = 2 * output[:, pairs].real, 2 * output[:, pairs].imag
    return (
        np.concatenate([image[real].real, a + b, a, b]).astype("float32"),
        np.concatenate([kernel[real].real, c, d - c, c + d]).astype("float32"),
        np.concatenate([output[:, real].real, p - q, -q, -p], axis=1).astype("float32"),
    )


def _points(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns points for polynomials of `count` coefficients, and the index of each conjugate.

    Real points save products. Roots of unity keep the accuracy.
    """
    reals = _REAL_POINTS[: 6 if count in _ALL_REAL_POINTS else min(count, 2)]
    order = np.arange(count - len(reals))
    roots = np.exp(2j * np.pi * order / max(1, len(order)))
    conjugates = [*range(len(reals)), *(len(reals) + -order % max(1, len(order)))]
    return np.concatenate([reals, roots]), np.array(conjugates)


def _powers(points: np.ndarray, count: int) -> np.ndarray:
    """Returns the powers 0 to count - 1 of each point as a row; for infinity, 0, ..., 0, 1."""
    infinite = np.isinf(points)[:, None]
    highest = np.arange(count) == count - 1
    return np.where(infinite, highest, np.where(infinite, 0, points[:, None]) ** np.arange(count))
