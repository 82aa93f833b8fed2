"""Convolutions inside an episode: from patches where that is faster."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfmeta import keras_internals, ops
from tfmeta.networks.episode import current_episode
from tfmeta.threads import only_cpu

# Convolutions are computed from patches if these stay in a core's own cache, as they come to be
# read several times; beyond that, TensorFlow's kernels are faster (docs/performance.md).
MOST_PATCH_BYTES = 2**20

# Before batch norm, a convolution whose kernel has so few rows for its filters, and patches of no
# more than so many bytes, is normalised by its kernel, with no pass over its result.
MOST_ROWS_PER_FILTER = 1 / 4
MOST_BYTES_TO_NORMALISE = 2**24


class Convolution(NamedTuple):
    """The result of a convolution, and what it was made from."""

    outputs: tf.Tensor  # kept, for its `id` is the key by which batch norm finds this
    inputs: tf.Tensor
    kernel: tf.Tensor
    options: tuple[Any, ...]

    def normalized(
        self, layer: keras.layers.BatchNormalization
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns what `layer` makes of the result by its own statistics, and these."""
        outputs, mean, variance = ops.normalized_product(
            ops.patches(self.inputs, self.kernel.shape[:2], *self.options),
            tf.reshape(self.kernel, [-1, self.kernel.shape[-1]]),
            None if layer.gamma is None else tf.cast(layer.gamma, self.kernel.dtype),
            None if layer.beta is None else tf.cast(layer.beta, self.kernel.dtype),
            layer.epsilon,
        )
        return tf.reshape(outputs, self.outputs.shape), mean, variance


def episodic_convolution(layer: keras.layers.Conv2D) -> Any:
    """Makes a convolution for a layer that is Keras's own outside of an episode."""

    def convolve(inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        episode = current_episode()
        if (
            episode is None
            or layer.groups != 1
            or layer.data_format != "channels_last"
            or not only_cpu()
        ):
            return keras_internals.own_convolution(layer, inputs, kernel)
        if episode.pairs is not None and inputs is episode.network_input:
            return episode.pairs.convolved(kernel, convolve)
        options = (tuple(layer.strides), layer.padding, tuple(layer.dilation_rate))
        kernel = tf.convert_to_tensor(kernel)
        # No patches at all: an image too small, about which Keras raises an error.
        size = ops.patches_size(inputs, layer.kernel_size, *options)
        if 0 < size <= MOST_PATCH_BYTES:
            outputs = ops.conv2d(inputs, kernel, *options)
        else:
            outputs = keras_internals.own_convolution(layer, inputs, kernel)
        # If batch norm makes its own from this, the result is left unused: a graph drops it.
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
