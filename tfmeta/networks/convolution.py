"""Convolutions inside an episode: computed from patches if that is faster."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfmeta import keras_internals, ops
from tfmeta.networks.episode import current_episode
from tfmeta.task_mapping import is_vectorizing
from tfmeta.threads import only_cpu

# Convolutions are computed from patches if these fit into a core's own cache, because they are
# read several times. For larger ones TensorFlow's kernels are faster (docs/performance.md).
MOST_PATCH_BYTES = 2**20

# Before batch norm, a convolution is normalised through its kernel, without a pass over its result,
# if the kernel has at most this many rows per filter and the patches have at most this many bytes.
MOST_ROWS_PER_FILTER = 1 / 4
MOST_BYTES_TO_NORMALISE = 2**24


class Convolution(NamedTuple):
    """The result of a convolution, with its inputs, kernel and options."""

    outputs: tf.Tensor  # kept because batch norm finds this convolution by its `id`
    inputs: tf.Tensor
    kernel: tf.Tensor
    options: tuple[Any, ...]

    def normalized(
        self, layer: keras.layers.BatchNormalization
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalises the result by its own statistics; returns it with its mean and variance."""
        outputs, mean, variance = ops.normalized_product(
            ops.patches(self.inputs, self.kernel.shape[:2], *self.options),
            tf.reshape(self.kernel, [-1, self.kernel.shape[-1]]),
            None if layer.gamma is None else tf.cast(layer.gamma, self.kernel.dtype),
            None if layer.beta is None else tf.cast(layer.beta, self.kernel.dtype),
            layer.epsilon,
        )
        return tf.reshape(outputs, self.outputs.shape), mean, variance


def episodic_convolution(layer: keras.layers.Conv2D) -> Any:
    """Makes a layer's convolution; outside of an episode it is Keras's own."""

    def convolve(inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        episode = current_episode()
        if (
            episode is None
            or layer.groups != 1
            or layer.data_format != "channels_last"
            or not only_cpu()
            or is_vectorizing()  # See `vectorized_operations`.
        ):
            return keras_internals.own_convolution(layer, inputs, kernel)
        if episode.pairs is not None and inputs is episode.network_input:
            return episode.pairs.convolved(kernel, convolve)
        options = (tuple(layer.strides), layer.padding, tuple(layer.dilation_rate))
        kernel = tf.convert_to_tensor(kernel)
        # Size 0: the image is too small; Keras raises the error.
        size = ops.patches_size(inputs, layer.kernel_size, *options)
        if 0 < size <= MOST_PATCH_BYTES:
            outputs = ops.conv2d(inputs, kernel, *options)
        else:
            outputs = keras_internals.own_convolution(layer, inputs, kernel)
        # If batch norm recomputes this, the result is unused and the graph prunes it.
        if (
            math.prod(kernel.shape[:3]) <= MOST_ROWS_PER_FILTER * kernel.shape[3]
            and 0 < size <= MOST_BYTES_TO_NORMALISE
            and kernel.dtype in (tf.float32, tf.float64)
        ):
            episode.convolutions[id(outputs)] = Convolution(outputs, inputs, kernel, options)
        return outputs

    return convolve


def prepare_convolutions(network: keras.Model) -> None:
    """Gives each of a network's stock `Conv2D` layers the episodic convolution, once."""
    for layer in keras_internals.layers_of(network):
        if keras_internals.is_stock_conv2d(layer):
            keras_internals.replace_convolution(layer, episodic_convolution)
