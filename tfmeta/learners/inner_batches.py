"""The examples of a support set that an inner step takes, and their loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from tfmeta.learners.output_kinds import targets_of


class Support(NamedTuple):
    """The support set of one task."""

    x: tf.Tensor  # [S, *x]
    y: tf.Tensor  # [S] or [S, *y]
    mask: tf.Tensor | None  # [S], 0 for padding


def mean_loss(
    loss: keras.losses.Loss | Callable[..., tf.Tensor],
    y_true: tf.Tensor,
    y_pred: tf.Tensor,
    mask: tf.Tensor | None,
) -> tf.Tensor:
    """Averages a Keras loss over a task's examples (sums it, if that is its reduction).

    Calling a loss object itself would divide by the number of replicas under a `tf.distribute`
    strategy, and so shrink the inner learning rate.

    Args:
        loss: keras.losses.Loss or function of (y_true, y_pred), as `keras.losses.get` returns.
        y_true: tf.Tensor `[N]` or `[N, *y]`.
        y_pred: tf.Tensor `[N, n_way]` or `[N, *y]`.
        mask: tf.Tensor `[N]` or None. 0 for padding.

    Returns:
        A scalar.
    """
    if isinstance(loss, keras.losses.Loss):
        values, reduction = loss.call, loss.reduction
    else:
        values, reduction = loss, "mean"
    if y_true.shape.rank == y_pred.shape.rank - 1:
        if targets_of(loss) == "one-hot":
            y_true = tf.one_hot(tf.cast(y_true, tf.int32), y_pred.shape[-1], dtype=y_pred.dtype)
        elif y_pred.shape[-1] == 1:
            y_true = y_true[..., None]
    y_true = tf.cast(y_true, y_pred.dtype)
    per_example = values(y_true, y_pred)
    per_example = tf.reduce_mean(tf.reshape(per_example, [tf.shape(y_pred)[0], -1]), axis=1)
    if mask is None:
        return tf.reduce_sum(per_example) if reduction == "sum" else tf.reduce_mean(per_example)
    mask = tf.cast(mask, per_example.dtype)
    total = tf.reduce_sum(mask * per_example)
    return total if reduction == "sum" else tf.math.divide_no_nan(total, tf.reduce_sum(mask))


def support_batch(
    x: tf.Tensor, y: tf.Tensor, mask: tf.Tensor | None, step: int | tf.Tensor, size: int | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Returns the mini-batch of an inner step, from a fixed pseudo-random order of the examples.

    Every example is drawn once before any is drawn again. Padding changes nothing.

    Args:
        x: tf.Tensor `[S, *x]`.
        y: tf.Tensor `[S]` or `[S, *y]`.
        mask: tf.Tensor `[S]` or None. 0 for padding.
        step: int or scalar int32 tf.Tensor. Number of the inner step, from 0.
        size: int or None. Examples per batch; all if None.

    Returns:
        The batch's x, y and mask: the whole support set, if that is no more than `size`.
    """
    n_rows = tf.shape(x)[0]
    if size is None or (mask is None and x.shape[0] is not None and x.shape[0] <= size):
        return x, y, mask
    exists = tf.ones([n_rows], tf.bool) if mask is None else tf.cast(mask, tf.bool)
    n_examples = tf.reduce_sum(tf.cast(exists, tf.int32))
    # Philox gives the same numbers to the first examples, however many rows follow.
    keys = tf.random.stateless_uniform([n_rows], [0, 0], alg="philox")
    order = tf.argsort(tf.where(tf.range(n_rows) < n_examples, keys, 2.0), stable=True)
    order = tf.gather(tf.argsort(tf.cast(~exists, tf.int32), stable=True), order)
    places = tf.range(size) + tf.where(n_examples > size, step * size, 0)
    rows = tf.gather(order, places % n_examples)
    used = (n_examples > size) | (tf.range(size) < n_examples)
    return tf.gather(x, rows), tf.gather(y, rows), tf.cast(used, tf.float32)


def power_of_two_scale(loss: Callable[[tf.Tensor], tf.Tensor], predictions: tf.Tensor) -> tf.Tensor:
    """Returns the scale of a loss whose gradient passes through a network in float16.

    Gradients below 6e-8 are 0 in float16, and those above 65504 are infinite. The loss is computed
    in higher precision: its largest gradient by a prediction is brought to about 16. To divide by a
    power of two afterwards is exact.

    Args:
        loss: function from predictions to a scalar.
        predictions: tf.Tensor `[S, …]`.
    """
    predictions = tf.stop_gradient(predictions)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(predictions)
        value = loss(predictions)
    largest = tf.reduce_max(tf.abs(tape.gradient(value, predictions, unconnected_gradients="zero")))
    exponent = tf.floor(tf.math.log(tf.maximum(largest, 1e-30)) / tf.math.log(2.0))
    scale = tf.pow(tf.constant(2.0, largest.dtype), 4 - exponent)
    is_usable = tf.math.is_finite(largest) & (largest > 0)
    return tf.stop_gradient(tf.where(is_usable, scale, tf.ones_like(scale)))
