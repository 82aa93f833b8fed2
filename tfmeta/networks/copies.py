"""Copies of Keras models, for the plain Keras models of learned tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    variables = [*network.trainable_variables, *network.non_trainable_variables]
    values = dict(zip(map(id, variables), [*trainable, *non_trainable], strict=True))
    return _copy_with(network, values)


def copy_with_statistics(network: keras.Model, statistics: Sequence[tf.Tensor]) -> keras.Model:
    """Makes a copy of a network with a task's batch-norm statistics, if there are any."""
    if not statistics:
        return clone(network)
    return _copy_with(network, dict(zip(map(id, statistics_of(network)), statistics, strict=True)))


def _copy_with(network: keras.Model, values: Mapping[int, tf.Tensor]) -> keras.Model:
    """Makes a copy of a network with other values of its variables, by their `id`.

    The copy of a subclass may not keep which layers are frozen. So its variables are found by their
    place among all variables, which does not depend on that.
    """
    copy = clone(network)
    for variable, of_copy in zip(network.variables, copy.variables, strict=True):
        if id(variable) in values:
            of_copy.assign(values[id(variable)])
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
