"""2-D convolution, and its transpose, as patches and a matrix product."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from tfmeta import pfor_internals
from tfmeta.task_mapping import is_vectorizing

pfor_internals.complete_converters()


def conv2d(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    strides: Sequence[int] = (1, 1),
    padding: Literal["same", "valid"] = "valid",
    dilation_rate: Sequence[int] = (1, 1),
) -> tf.Tensor:
    """Computes `keras.ops.conv` of images, faster on a CPU if gradients of gradients are taken.

    It is a product of the images' patches with the kernel. Derivatives of every order are again
    products with the same patches, and copies of rows.

    Args:
        inputs: tf.Tensor `[N, height, width, channels]`, all static.
        kernel: tf.Tensor `[rows, columns, channels / groups, filters]`. With several groups, each
            group of filters sees its own group of channels.
        strides: (int, int). Pixels from patch to patch, in rows and columns. Defaults to (1, 1).
        padding: str. `"same"` or `"valid"`, as in `keras.layers.Conv2D`. Defaults to `"valid"`.
        dilation_rate: (int, int). Pixels from tap to tap in a patch, in rows and columns. Defaults
            to (1, 1).

    Returns:
        `[N, new height, new width, filters]`.

    Example:

    >>> conv2d(tf.ones([1, 4, 3, 2]), tf.ones([3, 3, 2, 1])).numpy().tolist()
    [[[[18.0]], [[18.0]]]]
    """
    *kernel_size, channels, filters = kernel.shape
    n_taps, groups = math.prod(kernel_size), inputs.shape[-1] // channels
    places = _all_places(inputs, kernel_size, strides, padding, dilation_rate)
    seen = patches(inputs, kernel_size, strides, padding, dilation_rate)
    if groups == 1:
        outputs = tf.matmul(seen, tf.reshape(kernel, [n_taps * channels, filters]))
    else:
        outputs = tf.einsum(
            "ptgc,tcgf->pgf",
            tf.reshape(seen, [-1, n_taps, groups, channels]),
            tf.reshape(kernel, [n_taps, channels, groups, filters // groups]),
        )
    return tf.reshape(outputs, [*places, filters])


def conv2d_transpose(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    size: tuple[int, int],
    strides: Sequence[int] = (1, 1),
    padding: Literal["same", "valid"] = "valid",
    dilation_rate: Sequence[int] = (1, 1),
) -> tf.Tensor:
    """Computes the transpose of `conv2d`, its gradient by the images.

    Args:
        inputs: tf.Tensor `[N, height, width, channels]`, all static.
        kernel: tf.Tensor `[rows, columns, filters, channels]`.
        size: (int, int). Height and width of the images that `conv2d` would see.
        strides: As in `conv2d`.
        padding: As in `conv2d`.
        dilation_rate: As in `conv2d`.

    Returns:
        `[N, *size, filters]`.

    Example:

    >>> x = tf.reshape([1.0, 2.0], [1, 1, 2, 1])
    >>> tf.squeeze(conv2d_transpose(x, tf.ones([1, 2, 1, 1]), (1, 3))).numpy().tolist()
    [1.0, 3.0, 2.0]
    """
    n, height, width, channels = inputs.shape
    rows, columns, filters, _ = kernel.shape
    taps = _taps(size, (rows, columns), tuple(strides), padding, tuple(dilation_rate))
    products = tf.matmul(
        tf.reshape(inputs, [n * height * width, channels]),
        tf.reshape(kernel, [rows * columns * filters, channels]),
        transpose_b=True,
    )
    _, scatter = _gather_and_scatter(taps, n, math.prod(size), filters)
    return tf.reshape(scatter(tf.reshape(products, [n, -1, filters])), [n, *size, filters])


def patches(
    inputs: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int] = (1, 1),
    padding: Literal["same", "valid"] = "valid",
    dilation_rate: Sequence[int] = (1, 1),
) -> tf.Tensor:
    """Gathers the pixels that a kernel sees at each of its places; zeros outside of the image.

    Args:
        inputs: tf.Tensor `[N, height, width, channels]`, all static.
        kernel_size: (int, int). Rows and columns.
        strides: As in `conv2d`.
        padding: As in `conv2d`.
        dilation_rate: As in `conv2d`.

    Returns:
        `[N · places, rows · columns · channels]`.

    Example:

    >>> patches(tf.reshape([1, 2, 3, 4, 5, 6], [1, 2, 3, 1]), (2, 2)).numpy().tolist()
    [[1, 2, 4, 5], [2, 3, 5, 6]]
    """
    n, height, width, channels = inputs.shape
    rows, columns = kernel_size
    if (rows, columns, *strides) == (1, 1, 1, 1):
        return tf.reshape(inputs, [-1, channels])
    taps = _taps((height, width), (rows, columns), tuple(strides), padding, tuple(dilation_rate))
    gather, _ = _gather_and_scatter(taps, n, height * width, channels)
    seen = gather(tf.reshape(inputs, [n, height * width, channels]))
    return tf.reshape(seen, [-1, rows * columns * channels])


def patches_size(
    inputs: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int] = (1, 1),
    padding: Literal["same", "valid"] = "valid",
    dilation_rate: Sequence[int] = (1, 1),
) -> float:
    """Returns the bytes of patches that `conv2d` would make; infinity if a shape is not static.

    Args:
        inputs: tf.Tensor `[N, height, width, channels]`.
        kernel_size: (int, int). Rows and columns.
        strides: As in `conv2d`.
        padding: As in `conv2d`.
        dilation_rate: As in `conv2d`.

    Example:

    >>> patches_size(tf.ones([5, 28, 28, 1]), (3, 3), (2, 2), "same")
    35280
    """
    if not inputs.shape.is_fully_defined():
        return math.inf
    places = _all_places(inputs, kernel_size, strides, padding, dilation_rate)
    return math.prod([*places, *kernel_size, inputs.shape[-1]]) * inputs.dtype.size


class _Taps(NamedTuple):
    """The pixels that a kernel's taps see, and the taps that see a pixel; -1 means none."""

    seen: np.ndarray  # [places · taps]: the pixel, unless it is outside of the image
    seen_by: np.ndarray  # [times, pixels]: a pixel's first place and tap, its second, …


@functools.lru_cache(maxsize=256)
def _taps(
    size: tuple[int, int],
    kernel_size: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    dilation_rate: tuple[int, int],
) -> _Taps:
    (height, width), axes = size, []
    for axis in range(2):
        stride, dilation = strides[axis], dilation_rate[axis]
        places, before = _places(size[axis], kernel_size[axis], stride, padding, dilation)
        axes.append(
            np.arange(places)[:, None] * stride - before + np.arange(kernel_size[axis]) * dilation
        )
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    seen = np.where(inside, rows * width + columns, -1).reshape(-1)
    taps = np.flatnonzero(seen >= 0)
    taps = taps[np.argsort(seen[taps], kind="stable")]
    pixels, first, times = np.unique(seen[taps], return_index=True, return_counts=True)
    seen_by = np.full((times.max(initial=1), height * width), -1)
    seen_by[np.arange(taps.size) - np.repeat(first, times), np.repeat(pixels, times)] = taps
    return _Taps(seen.astype("int32"), seen_by.astype("int32"))


def _of_all_images(indices: np.ndarray, n: int, n_rows: int) -> np.ndarray:
    """Repeats indices for n images, one after another, each of `n_rows`: `[n · indices, 1]`.

    They are made with NumPy: as operations, they would be a sixth of the graph of a step.
    """
    images = np.arange(n, dtype="int32")[:, None] * n_rows
    return np.where(indices < 0, -1, images + indices).reshape(-1, 1).astype("int32")


def _all_places(
    inputs: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation_rate: Sequence[int],
) -> list[int]:
    """Returns the number of the kernel's places: images, rows and columns."""
    n, *size, _ = inputs.shape
    sides = zip(size, kernel_size, strides, dilation_rate, strict=True)
    return [n, *(_places(m, taps, stride, padding, by)[0] for m, taps, stride, by in sides)]


def _places(
    n_pixels: int, n_taps: int, stride: int, padding: str, dilation: int
) -> tuple[int, int]:
    """Returns the kernel's places along an axis, and the padding before the first pixel."""
    reach = (n_taps - 1) * dilation + 1
    if padding == "valid":
        return max((n_pixels - reach) // stride + 1, 0), 0
    n_places = -(-n_pixels // stride)
    return n_places, max((n_places - 1) * stride + reach - n_pixels, 0) // 2


def _gather_and_scatter(
    taps: _Taps, n: int, n_pixels: int, channels: int
) -> tuple[Callable[[tf.Tensor], tf.Tensor], Callable[[tf.Tensor], tf.Tensor]]:
    """Makes two functions that are each other's transpose, and so each other's gradient.

    Returns:
        A function that gathers `[N, places · taps, channels]` from `[N, pixels, channels]`, with
        zeros outside of the image; and one that sums what it gathered from each pixel.
    """
    n_taps = taps.seen.size

    def rows(x: tf.Tensor, indices: np.ndarray, n_rows: int) -> tf.Tensor:
        """Gathers rows of each image; an index of -1 gives zeros."""
        if is_vectorizing():
            # The indices are the same for all images and tasks. XLA knows no policy of bad ones.
            x = tf.pad(tf.reshape(x, [n, n_rows, channels]), [[0, 0], [0, 1], [0, 0]])
            return tf.gather(x, np.where(indices < 0, n_rows, indices), axis=1)
        indices = _of_all_images(indices, n, n_rows)
        return tf.gather_nd(tf.reshape(x, [-1, channels]), indices, bad_indices_policy="IGNORE")

    @tf.custom_gradient
    def gather(pixels: tf.Tensor) -> tuple[tf.Tensor, object]:
        return tf.reshape(rows(pixels, taps.seen, n_pixels), [n, n_taps, channels]), scatter

    @tf.custom_gradient
    def scatter(patches: tf.Tensor) -> tuple[tf.Tensor, object]:
        """Transposes `gather`: sums, for each pixel, over the places that see it."""
        often = np.mean(taps.seen_by >= 0, axis=1) >= 1 / 2
        if np.sum(~often) < 2:
            often[:] = True
        terms = [rows(patches, i, n_taps) for i in taps.seen_by[often]]
        if not np.all(often):
            # With stride 2, only a quarter of the pixels have more terms; add these separately.
            rest = taps.seen_by[~often]
            few = np.flatnonzero(rest[0] >= 0)
            sums = tf.add_n([rows(patches, i[few], n_taps) for i in rest])
            back = np.full(n_pixels, -1)
            back[few] = np.arange(few.size)
            terms.append(rows(sums, back, few.size))
        return tf.reshape(tf.add_n(terms), [n, n_pixels, channels]), gather

    return gather, scatter
