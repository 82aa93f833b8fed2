"""Keras models as pure functions of their weights, for learners that change weights per task."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from tfmeta import tensorflow_internals
from tfmeta.networks.batch_norm import (
    BatchNorm,
    normalization,
    prepare_batch_norm,
    statistics_of,
)
from tfmeta.networks.convolution import prepare_convolutions
from tfmeta.networks.episode import Episode, Normalization, in_episode
from tfmeta.networks.interface import built_by_call, check_output, shape_of
from tfmeta.networks.layer_losses import add_losses, collecting_losses
from tfmeta.networks.pairs import Pairs
from tfmeta.networks.recurrence import prepare_recurrence
from tfmeta.networks.side_effects import check_not_assigned, check_side_effects


def prepare_network(network: keras.Model) -> None:
    """Makes a network ready to be called in episodes; outside of them it stays plain Keras.

    The network's stock batch-norm, Conv2D, LSTM and GRU layers get methods that ask whether this
    thread is in an episode. Further calls have no effect.

    Raises:
        ValueError: If a layer has what an episode cannot support: batch renormalisation,
            synchronised statistics, or a `call` that changes trainable weights.
    """
    check_side_effects(network)
    prepare_batch_norm(network)
    prepare_convolutions(network)
    prepare_recurrence(network)


class _Scope(keras.StatelessScope):
    """A task's values of the variables, which layers must not read in a `tf.function`.

    A `tf.function` keeps the values that it read in its first call, those of another step.
    """

    def __init__(self, name: str, mapping: list[tuple[keras.Variable, tf.Tensor]]) -> None:
        super().__init__(state_mapping=mapping, collect_losses=True)
        self._network = name
        self._graph = tensorflow_internals.current_graph()

    def get_current_value(self, variable: keras.Variable) -> tf.Tensor:
        value = super().get_current_value(variable)
        if value is not None and not tensorflow_internals.in_control_flow_of(self._graph):
            raise ValueError(
                f"A layer of {self._network!r} uses its weight {variable.path!r} in a tf.function, "
                "which would keep the values of one inner step for all others: remove "
                "@tf.function there; the learner compiles what it calls."
            )
        return value


def call_network(
    network: keras.Model,
    trainable: list[tf.Tensor],
    non_trainable: list[tf.Tensor],
    x: Any,
    *,
    normalization: Normalization,
    mask: tf.Tensor | None = None,
    training: bool = False,
    adapts: bool = True,
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
        adapts: bool. Whether the weights adapt, so that second derivatives are needed. Defaults to
            True.

    Returns:
        The outputs, and the new values of `network.non_trainable_variables`.

    Raises:
        ValueError: If a layer cannot be called in episodes, or changes a trainable weight.
    """
    mapping = [
        *zip(network.trainable_variables, trainable, strict=True),
        *zip(network.non_trainable_variables, non_trainable, strict=True),
    ]
    pairs, x = (x, x.joined()) if isinstance(x, Pairs) else (None, x)
    prepare_network(network)
    with (
        _Scope(network.name, mapping) as scope,
        in_episode(Episode(normalization, mask, x, pairs, adapts)),
    ):
        before = [scope.get_current_value(v) for v in network.trainable_variables]
        outputs = network(x, training=training)
        for variable, value in zip(network.trainable_variables, before, strict=True):
            check_not_assigned(network, variable, scope.get_current_value(variable) is value)
    check_output("A learner's network", network, shape_of(outputs))
    if scope.losses and mask is not None:
        raise ValueError(
            f"A layer of {network.name!r} adds to the loss (by activity_regularizer or add_loss), "
            "and so would padded examples: give tasks without support_mask and query_mask, or "
            "remove what it adds."
        )
    add_losses(scope.losses)
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

    In meta-training, values that layers assign are written to their variables. What layers add to
    the loss for queries counts.

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
    with collecting_losses() as losses:
        outputs, non_trainable = call_network(
            network,
            trainable,
            non_trainable,
            x,
            normalization=normalization(batch_norm, part, training),
            mask=mask,
            training=training,
            adapts=False,
        )
    if part == "queries":
        add_losses(losses)
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
