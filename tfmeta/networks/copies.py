"""Copies of Keras models, for the plain Keras models of learned tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.networks.batch_norm import statistics_of
from tfmeta.networks.cloning import clone


def copy_with_values(
    network: keras.Model, trainable: Sequence[tf.Tensor], non_trainable: Sequence[tf.Tensor]
) -> keras.Model:
    """Makes a copy of a network with these values of its variables."""
    copy = clone(network)
    values = [*trainable, *non_trainable]
    variables = [*copy.trainable_variables, *copy.non_trainable_variables]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return copy


def copy_with_statistics(network: keras.Model, statistics: Sequence[tf.Tensor]) -> keras.Model:
    """Makes a copy of a network with a task's batch-norm statistics, if there are any."""
    copy = clone(network)
    if statistics:
        for variable, value in zip(statistics_of(copy), statistics, strict=True):
            variable.assign(value)
    return copy


def repeated(x: Any, value: tf.Tensor) -> Any:
    """Makes a symbolic tensor that has the same `value` for every example of a symbolic `x`.

    It consists of stock Keras layers, so a model built with it loads without tfmeta.
    """
    shape, dtype = tuple(value.shape), value.dtype.name
    ones = keras.ops.ones_like(keras.layers.Flatten(dtype=dtype)(x)[:, :1])
    layer = keras.layers.Dense(int(np.prod(shape)), use_bias=False, dtype=dtype)
    outputs = layer(ones)
    layer.set_weights([np.reshape(value, [1, -1])])
    return keras.layers.Reshape(shape, dtype=dtype)(outputs)
