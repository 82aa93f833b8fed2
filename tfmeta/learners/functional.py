"""Keras models as pure functions of their weights, for learners that change weights per task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras
import tensorflow as tf

Normalization = Literal["batch", "update", "replace", "moving"]


def batch_norm_layers(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The network's batch-norm layers that are not frozen, nested ones included."""
    return [
        layer
        for layer in network._flatten_layers()
        if type(layer).call is keras.layers.BatchNormalization.call and layer.trainable
    ]


def call_network(
    network: keras.Model,
    trainable: list[tf.Tensor],
    non_trainable: list[tf.Tensor],
    x: tf.Tensor,
    *,
    normalization: Normalization,
    mask: tf.Tensor | None = None,
    training: bool = False,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Calls a network with these weights in place of its own, and changes no variable.

    Batch norm is told what to do apart from `training`, because a few-shot learner that
    normalises by batch statistics in deployment must not switch on dropout there.

    Args:
        network: Any built Keras model.
        trainable: Values in the order of `network.trainable_variables`.
        non_trainable: Values in the order of `network.non_trainable_variables`.
        x: `[N, *x]`.
        normalization: What batch norm normalises by: `"batch"`, the statistics of `x`;
            `"update"`, the same, and its moving averages are updated as in Keras's training;
            `"replace"`, the same, and its moving averages become the statistics of `x`;
            `"moving"`, its moving averages.
        mask: `[N]`, 0 for rows that must not take part in statistics, or None.
        training: Whether other layers (dropout …) are in training mode.

    Returns:
        The outputs, and the new values of `network.non_trainable_variables`.
    """
    mapping = [
        *zip(network.trainable_variables, trainable, strict=True),
        *zip(network.non_trainable_variables, non_trainable, strict=True),
    ]
    with (
        keras.StatelessScope(state_mapping=mapping) as scope,
        _batch_norm(network, normalization, mask),
    ):
        outputs = network(x, training=training)
    updated = [scope.get_current_value(v) for v in network.non_trainable_variables]
    if normalization == "batch":
        averages = {
            id(v) for layer in batch_norm_layers(network) for v in layer.non_trainable_variables
        }
        updated = [
            old if id(v) in averages else new
            for v, old, new in zip(
                network.non_trainable_variables, non_trainable, updated, strict=True
            )
        ]
    return outputs, updated


@contextlib.contextmanager
def _batch_norm(
    network: keras.Model, normalization: Normalization, mask: tf.Tensor | None
) -> Iterator[None]:
    """While it is open, the network's batch-norm layers do as told, whatever `training` says.

    The layers stay Keras's own, so that users' models need no special layer: what is replaced,
    on the instance and for the time of the call, is the `training` flag that they see.
    """

    def bind(layer: keras.layers.BatchNormalization) -> Any:
        def call(inputs: tf.Tensor, training: Any = None, mask: Any = mask) -> tf.Tensor:
            if example_mask is not None:
                ones = [1] * (len(inputs.shape) - 2)
                mask = tf.broadcast_to(
                    tf.reshape(example_mask, [-1, *ones]), tf.shape(inputs)[:-1]
                )
            return type(layer).call(layer, inputs, training=normalization != "moving", mask=mask)

        return call

    example_mask = mask
    layers = batch_norm_layers(network)
    if example_mask is not None and any(
        layer.axis % layer.input_spec.ndim != layer.input_spec.ndim - 1 for layer in layers
    ):
        raise ValueError("Padded episodes need batch norm over the last axis (axis=-1).")
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        vars(layer)["call"] = bind(layer)
        if normalization == "replace":
            layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            del vars(layer)["call"]
            layer.momentum = momentum


def mean_loss(
    loss: keras.losses.Loss | Callable[..., tf.Tensor],
    y_true: tf.Tensor,
    y_pred: tf.Tensor,
    mask: tf.Tensor | None,
) -> tf.Tensor:
    """A Keras loss averaged over a task's examples (summed, if that is its reduction).

    Calling a loss object itself would divide by the number of replicas under a `tf.distribute`
    strategy, and so shrink the inner learning rate.

    Args:
        loss: What `keras.losses.get` returns: a loss object, or a function of (y_true, y_pred).
        y_true: `[N]` or `[N, *y]`.
        y_pred: `[N, n_way]` or `[N, *y]`.
        mask: `[N]`, 0 for padding, or None.

    Returns:
        A scalar.
    """
    if isinstance(loss, keras.losses.Loss):
        values, reduction = loss.call, loss.reduction
    else:
        values, reduction = loss, "mean"
    y_true = tf.cast(y_true, y_pred.dtype)
    if y_true.shape.rank == y_pred.shape.rank - 1 and y_pred.shape[-1] == 1:
        y_true = y_true[..., None]
    per_example = values(y_true, y_pred)
    per_example = tf.reduce_mean(tf.reshape(per_example, [tf.shape(y_pred)[0], -1]), axis=1)
    if mask is None:
        return tf.reduce_sum(per_example) if reduction == "sum" else tf.reduce_mean(per_example)
    mask = tf.cast(mask, per_example.dtype)
    total = tf.reduce_sum(mask * per_example)
    return total if reduction == "sum" else tf.math.divide_no_nan(total, tf.reduce_sum(mask))
