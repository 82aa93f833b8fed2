"""Copies of Keras models, for the plain Keras models of learned tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.networks.batch_norm import statistics_of


class NotCopyableError(ValueError):
    """Raised if Keras cannot copy a model."""


def copy_model(model: keras.Model) -> keras.Model:
    """Makes a new model of the same class, configuration and weights.

    Raises:
        NotCopyableError: If a subclass of `keras.Model` has no complete `get_config`.
    """
    # A user's classes need not be registered to be copied within the process. Keras's own classes
    # are left out: Keras knows them, and refuses some of them under their bare names.
    classes = {
        type(layer).__name__: type(layer)
        for layer in keras_internals.layers_of(model)
        if not type(layer).__module__.startswith("keras.")
    }
    try:
        with keras.saving.custom_object_scope(classes):
            copy = type(model).from_config(model.get_config())
    except (TypeError, NotImplementedError) as error:
        raise NotCopyableError(
            f"Keras cannot copy {model.name!r}, nor save it: each subclass of keras.Model in it "
            f"needs a get_config with all arguments of its constructor. ({error})"
        ) from error
    if not copy.built and model.get_build_config():
        copy.build_from_config(model.get_build_config())
    copy.set_weights(model.get_weights())
    return copy


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
        return copy_model(network)
    return _copy_with(network, dict(zip(map(id, statistics_of(network)), statistics, strict=True)))


def _copy_with(network: keras.Model, values: Mapping[int, tf.Tensor]) -> keras.Model:
    """Makes a copy of a network with other values of its variables, by their `id`.

    The copy of a subclass may not keep which layers are frozen. So its variables are found by their
    place among all variables, which does not depend on that.
    """
    copy = copy_model(network)
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
