"""2-D convolution as patches and a matrix product."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf


def conv2d(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    strides: Sequence[int] = (1, 1),
    padding: Literal["same", "valid"] = "valid",
    dilation_rate: Sequence[int] = (1, 1),
) -> tf.Tensor:
    """`keras.ops.conv` of images, faster on a CPU where gradients of gradients are taken.

    A product of the images' patches with the kernel. Both derivatives of every order are again
    products with the same patches, and copies of rows.

    Args:
        inputs: `[N, height, width, channels]`, all static.
        kernel: `[rows, columns, channels, filters]`.
        strides: Steps from patch to patch, in rows and columns.
        padding: As in `keras.layers.Conv2D`.
        dilation_rate: Steps from pixel to pixel in a patch, in rows and columns.

    Returns:
        `[N, new height, new width, filters]`.

    Example:

    >>> conv2d(tf.ones([1, 4, 3, 2]), tf.ones([3, 3, 2, 1])).numpy().tolist()
    [[[[18.0]], [[18.0]]]]
    """
    n, height, width, channels = inputs.shape
    rows, columns, _, filters = kernel.shape
    taps = _taps((height, width), (rows, columns), tuple(strides), padding, tuple(dilation_rate))
    patches = _patches(tf.reshape(inputs, [n, height * width, channels]), taps)
    outputs = tf.matmul(
        tf.reshape(patches, [-1, rows * columns * channels]),
        tf.reshape(kernel, [rows * columns * channels, filters]),
    )
    return tf.reshape(outputs, [n, *taps.places, filters])


def patches_size(
    inputs: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int] = (1, 1),
    padding: Literal["same", "valid"] = "valid",
    dilation_rate: Sequence[int] = (1, 1),
) -> float:
    """Bytes of the patches that `conv2d` would make; infinity where a shape is not static.

    Args:
        inputs: `[N, height, width, channels]`.
        kernel_size: (rows, columns).
        strides: As in `conv2d`.
        padding: As in `conv2d`.
        dilation_rate: As in `conv2d`.

    Example:

    >>> patches_size(tf.ones([5, 28, 28, 1]), (3, 3), (2, 2), "same")
    35280
    """
    if not inputs.shape.is_fully_defined():
        return math.inf
    n, height, width, channels = inputs.shape
    sides = zip((height, width), kernel_size, strides, dilation_rate, strict=True)
    places = [_places(size, taps, stride, padding, by)[0] for size, taps, stride, by in sides]
    return n * math.prod(places) * math.prod(kernel_size) * channels * inputs.dtype.size


class _Taps(NamedTuple):
    """The pixels that the kernel's taps see, with all pixels of an image in one row."""

    places: tuple[int, int]
    n_pixels: int
    pixel: np.ndarray  # of each place's each tap; n_pixels for what is outside of the image
    inside: np.ndarray  # the places' taps that are inside, in the order of their pixels


@functools.lru_cache(maxsize=256)
def _taps(
    size: tuple[int, int],
    kernel_size: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    dilation_rate: tuple[int, int],
) -> _Taps:
    (height, width), places, axes = size, [], []
    for axis in range(2):
        stride, dilation = strides[axis], dilation_rate[axis]
        n, before = _places(size[axis], kernel_size[axis], stride, padding, dilation)
        places.append(n)
        axes.append(
            np.arange(n)[:, None] * stride - before + np.arange(kernel_size[axis]) * dilation
        )
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixel = np.where(inside, rows * width + columns, height * width).reshape(-1)
    taps = np.flatnonzero(pixel < height * width)
    taps = taps[np.argsort(pixel[taps], kind="stable")]
    return _Taps(
        (places[0], places[1]), height * width, pixel.astype("int32"), taps.astype("int32")
    )


def _of_all_images(taps: _Taps, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of n images' patches that are inside, and their pixels in n images, in this order.

    Made with NumPy: as operations of a graph, they would be a sixth of all that a step traces.
    """
    images = np.arange(n, dtype="int32")[:, None]
    rows = images * taps.pixel.size + taps.inside
    return rows.reshape(-1), (images * taps.n_pixels + taps.pixel[taps.inside]).reshape(-1)


def _places(
    n_pixels: int, n_taps: int, stride: int, padding: str, dilation: int
) -> tuple[int, int]:
    """Along an axis: the kernel's places, and the padding before the first pixel."""
    reach = (n_taps - 1) * dilation + 1
    if padding == "valid":
        return max((n_pixels - reach) // stride + 1, 0), 0
    n_places = -(-n_pixels // stride)
    return n_places, max((n_places - 1) * stride + reach - n_pixels, 0) // 2


def _patches(pixels: tf.Tensor, taps: _Taps) -> tf.Tensor:
    """`[N, places · taps, channels]` from `[N, pixels, channels]`; zeros outside of the image."""
    n, _, channels = pixels.shape

    @tf.custom_gradient
    def gather(pixels: tf.Tensor) -> tuple[tf.Tensor, object]:
        if taps.inside.size < taps.pixel.size:
            # A pixel of zeros for what is outside. (TensorFlow's padding is several times slower.)
            pixels = tf.concat([pixels, tf.zeros_like(pixels[:, :1])], axis=1)
        return tf.gather(pixels, taps.pixel, axis=1), scatter

    @tf.custom_gradient
    def scatter(patches: tf.Tensor) -> tuple[tf.Tensor, object]:
        """The transpose of `gather`: each pixel's sum over the places that it appears in."""
        rows, pixels = _of_all_images(taps, n)
        sums = tf.raw_ops.SparseSegmentSumWithNumSegments(
            data=tf.reshape(patches, [-1, channels]),
            indices=rows,
            segment_ids=pixels,
            num_segments=n * taps.n_pixels,
        )
        return tf.reshape(sums, [n, taps.n_pixels, channels]), gather

    return gather(pixels)
