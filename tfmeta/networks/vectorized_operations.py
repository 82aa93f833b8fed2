"""TensorFlow's functions that are computed in another way while all tasks are mapped at once.

A convolution has one kernel for all images. If each task has its own, `tf.vectorized_map` makes a
loop of it; of a product of patches, it makes one batched product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfmeta import ops, tensorflow_internals
from tfmeta.networks.episode import current_episode
from tfmeta.task_mapping import is_vectorizing, is_vectorizing_gradients

# Channels come last in these formats of one and two dimensions.
_LAST = (None, "NWC", "NHWC")


def convolution(
    input: tf.Tensor,
    filters: tf.Tensor,
    strides: Any = None,
    padding: Any = "VALID",
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> tf.Tensor:
    """Computes `tf.nn.convolution` of one or two dimensions, also in groups."""
    input, filters = tf.convert_to_tensor(input), tf.convert_to_tensor(filters)
    if not _is_for_patches(input, filters, padding, data_format):
        original = tensorflow_internals.original("nn.convolution")
        return original(input, filters, strides, padding, data_format, dilations, name)
    n = input.shape.rank - 2
    steps = _pair(strides, n), padding.lower(), _pair(dilations, n)
    if n == 2:
        return ops.conv2d(input, filters, *steps)
    return ops.conv2d(input[:, None], filters[None], *steps)[:, 0]


def depthwise_conv2d(
    input: tf.Tensor,
    filter: tf.Tensor,
    strides: Sequence[int],
    padding: Any,
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> tf.Tensor:
    """Computes `tf.nn.depthwise_conv2d`: a convolution with a group for each channel."""
    input, filter = tf.convert_to_tensor(input), tf.convert_to_tensor(filter)
    if not _is_for_patches(input, filter, padding, data_format):
        original = tensorflow_internals.original("nn.depthwise_conv2d")
        return original(input, filter, strides, padding, data_format, dilations, name)
    *size, channels, multiplier = filter.shape
    kernel = tf.reshape(filter, [*size, 1, channels * multiplier])
    return ops.conv2d(input, kernel, strides[1:3], padding.lower(), _pair(dilations, 2))


def separable_conv2d(
    input: tf.Tensor,
    depthwise_filter: tf.Tensor,
    pointwise_filter: tf.Tensor,
    strides: Sequence[int],
    padding: Any,
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> tf.Tensor:
    """Computes `tf.nn.separable_conv2d`, of channels and then of pixels."""
    x = tf.nn.depthwise_conv2d(input, depthwise_filter, strides, padding, data_format, dilations)
    return tf.nn.convolution(x, pointwise_filter, 1, "VALID", data_format, name=name)


def conv_transpose(
    input: tf.Tensor,
    filters: tf.Tensor,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> tf.Tensor:
    """Computes `tf.nn.conv_transpose` of one or two dimensions."""
    input, filters = tf.convert_to_tensor(input), tf.convert_to_tensor(filters)
    sizes = tf.get_static_value(tf.convert_to_tensor(output_shape))
    if sizes is None or not _is_for_patches(input, filters, padding, data_format):
        original = tensorflow_internals.original("nn.conv_transpose")
        return original(
            input, filters, output_shape, strides, padding, data_format, dilations, name
        )
    n = input.shape.rank - 2
    steps = _pair(strides, n), padding.lower(), _pair(dilations, n)
    size = [int(m) for m in sizes[1:-1]]
    if n == 2:
        return ops.conv2d_transpose(input, filters, (size[0], size[1]), *steps)
    return ops.conv2d_transpose(input[:, None], filters[None], (1, size[0]), *steps)[:, 0]


def max_pool(input: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
    """Computes `tf.nn.max_pool`; XLA has its second derivative in float32 only."""
    input = tf.convert_to_tensor(input)
    original = tensorflow_internals.original("nn.max_pool")
    if input.dtype not in (tf.float16, tf.bfloat16):
        return original(input, *args, **kwargs)
    return tf.cast(original(tf.cast(input, tf.float32), *args, **kwargs), input.dtype)


def _is_for_patches(x: tf.Tensor, kernel: tf.Tensor, padding: Any, data_format: Any) -> bool:
    return (
        x.shape.rank in (3, 4)
        and x.shape.is_fully_defined()
        and kernel.shape.is_fully_defined()
        and isinstance(padding, str)
        and data_format in _LAST
    )


def _pair(steps: Any, n: int) -> tuple[int, int]:
    """Returns strides or dilations of rows and columns; of a row alone, after 1."""
    steps = [1 if steps is None else steps] if not isinstance(steps, list | tuple) else steps
    steps = [int(m) for m in (list(steps) * n)[:n]]
    return (1, steps[0]) if n == 1 else (steps[0], steps[1])


def install() -> None:
    """Installs the replacements; further calls have no effect."""
    for replacement in (convolution, depthwise_conv2d, separable_conv2d, conv_transpose, max_pool):
        name = f"nn.{replacement.__name__}"
        tensorflow_internals.install(name, _while_vectorizing(name, replacement))


def _while_vectorizing(name: str, replacement: Any) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        episode = current_episode() if is_vectorizing() else None
        # With weights that all tasks share, it stays a convolution of all images.
        if episode is not None and (episode.adapts or is_vectorizing_gradients()):
            return replacement(*args, **kwargs)
        return tensorflow_internals.original(name)(*args, **kwargs)

    return function
