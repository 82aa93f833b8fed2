"""Keras models as pure functions of their weights, for learners that change weights per task."""

from __future__ import annotations

import contextlib
import math
import numbers
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf

from tfmeta import ops
from tfmeta.threads import only_cpu

Normalization = Literal["batch", "update", "replace", "moving"]

# How the batch-norm layers of a learner normalise; the one choice that all learners offer.
BatchNorm = Literal["transductive", "support", "running"]


# Convolutions are computed from patches if these stay in a core's own cache, as they come to be
# read several times; beyond that, TensorFlow's kernels are faster (docs/performance.md).
MOST_PATCH_BYTES = 2**20


# Before batch norm, a convolution whose kernel has so few rows for its filters, and patches of no
# more than so many bytes, is normalised by its kernel, with no pass over its result.
MOST_ROWS_PER_FILTER = 1 / 4
MOST_BYTES_TO_NORMALISE = 2**24


# Threads that predict with models of the same learner share its layers, whose methods are replaced
# while a network is called.
_ONE_AT_A_TIME = threading.RLock()


class Pairs(NamedTuple):
    """Each of N examples with each of M classes, as the input of a network.

    The network sees one tensor, `joined()`. A convolution of that is linear in its channels, so
    that it can be computed of the classes and of the examples, and then added up for each pair:
    M + N products rather than 2 · M · N.
    """

    classes: tf.Tensor  # [M, *x, channels]
    examples: tf.Tensor  # [N, *x, channels]

    def joined(self) -> tf.Tensor:
        """`[N·M, *x, 2·channels]`, the class's channels before the example's."""
        classes = tf.repeat(self.classes[None], tf.shape(self.examples)[0], axis=0)
        examples = tf.repeat(self.examples[:, None], tf.shape(self.classes)[0], axis=1)
        return _by_pair(tf.concat([classes, examples], axis=-1))

    def convolved(self, kernel: tf.Tensor, convolve: Callable[..., tf.Tensor]) -> tf.Tensor:
        """`[N·M, *y]`: what `convolve(x, kernel)` gives for `joined()`, up to rounding."""
        of_classes, of_examples = tf.split(tf.convert_to_tensor(kernel), 2, axis=-2)
        examples = convolve(self.examples, of_examples)
        return _by_pair(convolve(self.classes, of_classes) + examples[:, None])


class _Convolution(NamedTuple):
    """The result of a convolution, and what it was made from."""

    outputs: tf.Tensor  # kept, for its `id` is the key by which batch norm finds this
    inputs: tf.Tensor
    kernel: tf.Tensor
    options: tuple[Any, ...]

    def normalized(
        self, layer: keras.layers.BatchNormalization
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What the layer makes of it by its own statistics, and these."""
        outputs, mean, variance = ops.normalized_product(
            ops.patches(self.inputs, self.kernel.shape[:2], *self.options),
            tf.reshape(self.kernel, [-1, self.kernel.shape[-1]]),
            None if layer.gamma is None else tf.cast(layer.gamma, self.kernel.dtype),
            None if layer.beta is None else tf.cast(layer.beta, self.kernel.dtype),
            layer.epsilon,
        )
        return tf.reshape(outputs, self.outputs.shape), mean, variance


def _by_pair(x: tf.Tensor) -> tf.Tensor:
    """`[N·M, *x]` from `[N, M, *x]`."""
    return tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], axis=0))


def check_batch_norm(batch_norm: Any) -> None:
    """Raises a ValueError if it is none of the three modes."""
    if batch_norm not in ("transductive", "support", "running"):
        raise ValueError(
            f'batch_norm must be "transductive", "support" or "running"; got {batch_norm!r}.'
        )


def batch_norm_layers(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The network's batch-norm layers that are not frozen, nested ones included."""
    return [
        layer
        for layer in network._flatten_layers()
        if type(layer).call is keras.layers.BatchNormalization.call and layer.trainable
    ]


def normalises_together(batch_norm: BatchNorm, *networks: keras.Model) -> bool:
    """Whether the queries of a task are normalised by their own statistics."""
    return batch_norm == "transductive" and any(batch_norm_layers(n) for n in networks)


def check_model(name: str, model: Any) -> None:
    """Raises a ValueError if it is no Keras model."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"{name} must be a keras.Model; got {type(model).__name__}.")


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Raises a ValueError if it is no integer of at least this size."""
    if not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"{name} must be an integer ≥ {minimum}; got {value!r}.")


def outputs_shape(network: keras.Model, example_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a network's output for one example."""
    if hasattr(network, "output_shape"):
        return tuple(network.output_shape[1:])
    return tuple(network(keras.Input(example_shape)).shape[1:])


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
    """Calls a network with these weights in place of its own, and changes no variable.

    Batch norm is told what to do apart from `training`, because a few-shot learner that
    normalises by batch statistics in deployment must not switch on dropout there.

    Args:
        network: Any built Keras model.
        trainable: Values in the order of `network.trainable_variables`.
        non_trainable: Values in the order of `network.non_trainable_variables`.
        x: `[N, *x]`, `Pairs`, or what else the network takes.
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
    pairs, x = (x, x.joined()) if isinstance(x, Pairs) else (None, x)
    convolutions: dict[int, _Convolution] = {}
    with (
        _ONE_AT_A_TIME,
        keras.StatelessScope(state_mapping=mapping) as scope,
        _twice_differentiable_moments(),
        _batch_norm(network, normalization, mask, convolutions),
        _fast_convolution(network, x, pairs, convolutions),
    ):
        outputs = network(x, training=training)
    return outputs, [scope.get_current_value(v) for v in network.non_trainable_variables]


def call_on_support(
    network: keras.Model,
    x: Any,
    *,
    batch_norm: BatchNorm,
    mask: tf.Tensor | None = None,
    training: bool = False,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Calls a network whose weights are the same for all tasks, on a task's support set.

    Args:
        network: Any built Keras model.
        x: `[S, *x]`, `Pairs`, or what else the network takes.
        batch_norm: The learner's mode.
        mask: `[S]`, 0 for padding, or None.
        training: Whether this is meta-training. What layers assign then goes to their variables.

    Returns:
        The outputs, and the statistics by which to normalise the queries: those of the support
        set in the `"support"` mode, in the order of `statistics_of`, else none.
    """
    normalization: Normalization = "replace" if batch_norm == "support" else "batch"
    if batch_norm == "running":
        normalization = "update" if training else "moving"
    trainable, non_trainable = values_of(network)
    outputs, non_trainable = call_network(
        network,
        trainable,
        non_trainable,
        x,
        normalization=normalization,
        mask=mask,
        training=training,
    )
    if training:
        carry_over(network, non_trainable, batch_norm)
    if batch_norm != "support":
        return outputs, []
    statistics = {id(v) for v in statistics_of(network)}
    variables = zip(network.non_trainable_variables, non_trainable, strict=True)
    return outputs, [value for v, value in variables if id(v) in statistics]


def call_on_queries(
    network: keras.Model,
    statistics: list[tf.Tensor],
    x: Any,
    *,
    batch_norm: BatchNorm,
    mask: tf.Tensor | None = None,
    training: bool = False,
) -> tf.Tensor:
    """Calls the same network on the task's queries, given what `call_on_support` returned.

    Args:
        network: Any built Keras model.
        statistics: The statistics that `call_on_support` returned.
        x: `[Q, *x]`, `Pairs`, or what else the network takes.
        batch_norm: The learner's mode.
        mask: `[Q]`, 0 for padding, or None.
        training: Whether this is meta-training. What layers assign then goes to their variables.
    """
    normalization: Normalization = "moving" if batch_norm == "support" else "batch"
    if batch_norm == "running":
        normalization = "update" if training else "moving"
    trainable, non_trainable = values_of(network)
    if batch_norm == "support":
        ids = [id(v) for v in statistics_of(network)]
        of_support = dict(zip(ids, statistics, strict=True))
        non_trainable = [
            of_support.get(id(v), value)
            for v, value in zip(network.non_trainable_variables, non_trainable, strict=True)
        ]
    outputs, non_trainable = call_network(
        network,
        trainable,
        non_trainable,
        x,
        normalization=normalization,
        mask=mask,
        training=training,
    )
    if training:
        carry_over(network, non_trainable, batch_norm)
    return outputs


def values_of(network: keras.Model) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The present values of the trainable and of the non-trainable variables."""
    return (
        [tf.convert_to_tensor(v.value) for v in network.trainable_variables],
        [tf.convert_to_tensor(v.value) for v in network.non_trainable_variables],
    )


def statistics_of(network: keras.Model) -> list[keras.Variable]:
    """The moving averages of the network's batch-norm layers that are not frozen."""
    ids = {id(v) for layer in batch_norm_layers(network) for v in layer.non_trainable_variables}
    return [v for v in network.non_trainable_variables if id(v) in ids]


def carry_over(network: keras.Model, non_trainable: list[tf.Tensor], batch_norm: BatchNorm) -> None:
    """Assigns what outlives a task in training: all but the support set's statistics."""
    statistics = {id(v) for v in statistics_of(network)} if batch_norm == "support" else set()
    for variable, value in zip(network.non_trainable_variables, non_trainable, strict=True):
        if id(variable) not in statistics:
            variable.assign(value)


@contextlib.contextmanager
def _batch_norm(
    network: keras.Model,
    normalization: Normalization,
    mask: tf.Tensor | None,
    convolutions: dict[int, _Convolution],
) -> Iterator[None]:
    """While it is open, the network's batch-norm layers do as told, whatever `training` says.

    The layers stay Keras's own, so that users' models need no special layer: what is replaced is
    their `call`, on the instance and for the time of the call.
    """

    def bind(layer: keras.layers.BatchNormalization) -> Any:
        def call(inputs: tf.Tensor, training: Any = None, mask: Any = None) -> tf.Tensor:
            x = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
            axis = layer.axis % x.shape.rank
            by_own = normalization != "moving"
            fast = by_own and example_mask is None and axis == x.shape.rank - 1 and only_cpu()
            convolution = convolutions.get(id(inputs)) if fast else None
            mean, variance = layer.moving_mean, layer.moving_variance
            if convolution is not None:
                outputs, mean, variance = convolution.normalized(layer)
            else:
                if by_own and not (fast and normalization == "batch"):
                    mean, variance = _moments(x, axis, example_mask)
                outputs = (
                    _normalize(layer, x)
                    if fast
                    else keras.ops.batch_normalization(
                        x, mean, variance, axis, layer.beta, layer.gamma, layer.epsilon
                    )
                )
            decay = {"update": layer.momentum, "replace": 0.0}.get(normalization, 1.0)
            if decay < 1:
                for average, value in (
                    (layer.moving_mean, mean),
                    (layer.moving_variance, variance),
                ):
                    average.assign(decay * average + (1 - decay) * value)
            return tf.cast(outputs, layer.compute_dtype)

        return call

    example_mask = mask
    layers = batch_norm_layers(network)
    if any(layer.renorm for layer in layers):
        raise ValueError("Batch renormalisation is not defined for episodes: use renorm=False.")
    for layer in layers:
        vars(layer)["call"] = bind(layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["call"]


def _normalize(layer: keras.layers.BatchNormalization, x: tf.Tensor) -> tf.Tensor:
    """What the layer makes of `x` by its own statistics."""
    beta = None if layer.beta is None else tf.cast(layer.beta, x.dtype)
    if layer.gamma is None:
        return ops.normalize(x, beta, layer.epsilon)
    outputs = ops.normalize(x, None, layer.epsilon) * tf.cast(layer.gamma, x.dtype)
    return outputs if beta is None else outputs + beta


@contextlib.contextmanager
def _fast_convolution(
    network: keras.Model, x: Any, pairs: Pairs | None, convolutions: dict[int, _Convolution]
) -> Iterator[None]:
    """While it is open, the network's `Conv2D` layers use `ops.conv2d` where that is faster.

    If the network's input `x` is that of pairs, a layer computes its convolution from their parts.
    What batch norm can compute better by itself is put into `convolutions`.
    """

    def bind(layer: keras.layers.Conv2D) -> Any:
        def convolution_op(inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
            if pairs is not None and inputs is x:
                return pairs.convolved(kernel, convolution_op)
            options = (tuple(layer.strides), layer.padding, tuple(layer.dilation_rate))
            kernel = tf.convert_to_tensor(kernel)
            # No patches at all: an image too small, about which Keras raises an error.
            size = ops.patches_size(inputs, layer.kernel_size, *options)
            if 0 < size <= MOST_PATCH_BYTES:
                outputs = ops.conv2d(inputs, kernel, *options)
            else:
                outputs = type(layer).convolution_op(layer, inputs, kernel)
            # If batch norm makes its own from this, the result is left unused: a graph drops it.
            if (
                math.prod(kernel.shape[:3]) <= MOST_ROWS_PER_FILTER * kernel.shape[3]
                and 0 < size <= MOST_BYTES_TO_NORMALISE
                and kernel.dtype in (tf.float32, tf.float64)
            ):
                convolutions[id(outputs)] = _Convolution(outputs, inputs, kernel, options)
            return outputs

        return convolution_op

    layers = [
        layer
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.Conv2D)
        and type(layer).convolution_op is keras.layers.Conv2D.convolution_op
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and "convolution_op" not in vars(layer)
        and only_cpu()
    ]
    for layer in layers:
        vars(layer)["convolution_op"] = bind(layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["convolution_op"]


def _moments(x: tf.Tensor, axis: int, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance over all axes but one, over the rows that `mask` `[N]` does not exclude."""
    axes = [a for a in range(x.shape.rank) if a != axis]
    if mask is None:
        return moments(x, axes)
    weights = tf.reshape(tf.cast(mask, x.dtype), [-1] + [1] * (x.shape.rank - 1))
    weights = tf.broadcast_to(weights, tf.shape(x))
    weights /= tf.reduce_sum(weights, axes, keepdims=True)
    mean = tf.reduce_sum(weights * x, axes, keepdims=True)
    return tf.reshape(mean, [-1]), tf.reduce_sum(weights * tf.square(x - mean), axes)


def moments(
    x: tf.Tensor, axes: Any, shift: Any = None, keepdims: bool = False, name: str | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """`tf.nn.moments` with the right second derivatives.

    TensorFlow's treats the mean in the variance as a constant: right for a gradient, wrong for the
    gradient of a gradient that meta-learning takes.
    """
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=keepdims, name=name)
    return (mean if keepdims else tf.squeeze(mean, axes)), variance


@contextlib.contextmanager
def _twice_differentiable_moments() -> Iterator[None]:
    """While it is open, Keras's normalisation layers compute their statistics by `moments`."""
    original = tf.nn.moments
    tf.nn.moments = moments
    try:
        yield
    finally:
        tf.nn.moments = original


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


def support_batch(
    x: tf.Tensor, y: tf.Tensor, mask: tf.Tensor | None, step: int | tf.Tensor, size: int | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """The mini-batch of an inner step, from a fixed pseudo-random order of the support set.

    Every example is drawn once before any is drawn again. Padding changes nothing.

    Args:
        x: `[S, *x]`.
        y: `[S]` or `[S, *y]`.
        mask: `[S]`, 0 for padding, or None.
        step: Number of the inner step, from 0.
        size: Examples per batch; None for all.

    Returns:
        The batch's x, y and mask: all of the support set, if that is no more than `size`.
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
