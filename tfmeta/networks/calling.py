"""Keras models as pure functions of their weights, for learners that change weights per task."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.networks.batch_norm import (
    BatchNorm,
    normalization,
    prepare_batch_norm,
    statistics_of,
)
from tfmeta.networks.convolution import prepare_convolutions
from tfmeta.networks.episode import Episode, Normalization, in_episode
from tfmeta.networks.interface import built_by_call, check_output, shape_of
from tfmeta.networks.pairs import Pairs


def prepare_network(network: keras.Model) -> None:
    """Makes a network ready to be called in episodes; outside of them it stays plain Keras.

    The network's stock batch-norm and Conv2D layers get methods that ask whether this thread is in
    an episode. Further calls have no effect.

    Raises:
        ValueError: If a layer has what an episode cannot support: losses of its own, batch
            renormalisation or synchronised statistics.
    """
    for layer in keras_internals.layers_of(network):
        if getattr(layer, "activity_regularizer", None) is not None:
            raise ValueError(
                f"Layer {layer.name!r} has an activity_regularizer, which tfmeta cannot add to the "
                "losses of tasks: remove it, or regularise weights (kernel_regularizer) instead."
            )
    prepare_batch_norm(network)
    prepare_convolutions(network)


def call_network(
    network: keras.Model,
    trainable: list[tf.Tensor],
    non_trainable: list[tf.Tensor],
    x: Any,
    *,
    normalization: Normalization,
    mask: tf.Tensor | None = None,
    training: bool = False,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Calls a network with other values of its variables. Assigns to no variable.

    Args:
        network: keras.Model. Any built Keras model.
        trainable: list of tf.Tensor. Values in the order of `network.trainable_variables`.
        non_trainable: list of tf.Tensor. Values of `network.non_trainable_variables`, in order.
        x: tf.Tensor `[N, *x]`, `Pairs`, or any other input of the network.
        normalization: str. The statistics of batch norm. `"batch"`: those of `x`; `"update"`: those
            of `x`, which also update the moving averages as in Keras's training; `"replace"`: those
            of `x`, which also replace the moving averages; `"moving"`: the moving averages.
        mask: tf.Tensor `[N]` or None. 0 for rows that must not enter statistics. Defaults to None.
        training: bool. Whether other layers (dropout …) are in training mode. Defaults to False.

    Returns:
        The outputs, and the new values of `network.non_trainable_variables`.

    Raises:
        ValueError: If a layer adds losses of its own, or cannot be called in episodes.
    """
    mapping = [
        *zip(network.trainable_variables, trainable, strict=True),
        *zip(network.non_trainable_variables, non_trainable, strict=True),
    ]
    pairs, x = (x, x.joined()) if isinstance(x, Pairs) else (None, x)
    prepare_network(network)
    with (
        keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope,
        in_episode(Episode(normalization, mask, x, pairs)),
    ):
        outputs = network(x, training=training)
    check_output("A learner's network", network, shape_of(outputs))
    if scope.losses:
        raise ValueError(
            f"A layer of {network.name!r} calls add_loss, which tfmeta cannot add to the losses of "
            "tasks: remove it, or put what it computes into the compiled loss."
        )
    return outputs, [scope.get_current_value(v) for v in network.non_trainable_variables]


def call_shared_network(
    network: keras.Model,
    x: Any,
    *,
    part: Literal["support", "queries"],
    batch_norm: BatchNorm,
    statistics: list[tf.Tensor] | None = None,
    mask: tf.Tensor | None = None,
    training: bool = False,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Calls a network whose weights all tasks share on a task's support set or queries.

    In meta-training, values that layers assign are written to their variables.

    Args:
        network: keras.Model. Any built Keras model.
        x: tf.Tensor `[N, *x]`, `Pairs`, or any other input of the network.
        part: str. `"support"` or `"queries"`.
        batch_norm: str. The learner's mode.
        statistics: list of tf.Tensor or None. What the call on the support set returned, to
            normalise queries by in the mode `"support"`. Defaults to None.
        mask: tf.Tensor `[N]` or None. 0 for padding. Defaults to None.
        training: bool. Whether this is meta-training. Defaults to False.

    Returns:
        The outputs; and, of a support set in the mode `"support"`, its statistics in the order of
        `statistics_of`, else none.
    """
    trainable, non_trainable = values_of(network)
    if statistics:
        by_variable = dict(zip(map(id, statistics_of(network)), statistics, strict=True))
        non_trainable = [
            by_variable.get(id(v), value)
            for v, value in zip(network.non_trainable_variables, non_trainable, strict=True)
        ]
    outputs, non_trainable = call_network(
        network,
        trainable,
        non_trainable,
        x,
        normalization=normalization(batch_norm, part, training),
        mask=mask,
        training=training,
    )
    if training:
        carry_over(network, non_trainable, batch_norm)
    if batch_norm != "support" or part == "queries":
        return outputs, []
    ids = {id(v) for v in statistics_of(network)}
    variables = zip(network.non_trainable_variables, non_trainable, strict=True)
    return outputs, [value for v, value in variables if id(v) in ids]


def values_of(network: keras.Model) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Returns the present values of the trainable and of the non-trainable variables."""
    return (
        [tf.convert_to_tensor(v.value) for v in network.trainable_variables],
        [tf.convert_to_tensor(v.value) for v in network.non_trainable_variables],
    )


def carry_over(network: keras.Model, non_trainable: list[tf.Tensor], batch_norm: BatchNorm) -> None:
    """Assigns the values that a training step keeps: all but the support set's statistics."""
    ids = {id(v) for v in statistics_of(network)} if batch_norm == "support" else set()
    for variable, value in zip(network.non_trainable_variables, non_trainable, strict=True):
        if id(variable) not in ids:
            variable.assign(value)


def output_shape(network: keras.Model, example_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of a network's output for one example."""
    if hasattr(network, "output_shape"):
        return tuple(network.output_shape[1:])
    name = "A learner's network"
    shape = shape_of(built_by_call(name, network, example_shape))
    check_output(name, network, shape)
    return tuple(shape[1:])
