"""Batch norm inside an episode: three modes, one table, one call."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from tfmeta import keras_internals, ops
from tfmeta.modes import BatchNorm as BatchNorm
from tfmeta.networks import replacements
from tfmeta.networks.episode import Episode, Normalization, current_episode
from tfmeta.networks.replacements import moments
from tfmeta.task_mapping import is_vectorizing
from tfmeta.threads import only_cpu

# The examples that a network is called on: the support set in an inner step, the support set to
# prepare for the queries, or the queries.
Part = Literal["inner steps", "support", "queries"]

# The normalisation in meta-training and elsewhere, by mode and part.
MODES: dict[BatchNorm, dict[Part, tuple[Normalization, Normalization]]] = {
    "transductive": {
        "inner steps": ("batch", "batch"),
        "support": ("batch", "batch"),
        "queries": ("batch", "batch"),
    },
    "support": {
        "inner steps": ("batch", "batch"),
        "support": ("replace", "replace"),
        "queries": ("moving", "moving"),
    },
    "running": {
        "inner steps": ("update", "moving"),
        "support": ("update", "moving"),
        "queries": ("update", "moving"),
    },
}


def normalization(batch_norm: BatchNorm, part: Part, training: bool) -> Normalization:
    """Returns the statistics that batch norm normalises with.

    Args:
        batch_norm: str. The learner's mode.
        part: str. What the network is called on.
        training: bool. Whether this is meta-training.

    Example:

    >>> normalization("support", "queries", training=True)
    'moving'
    """
    in_training, elsewhere = MODES[batch_norm][part]
    return in_training if training else elsewhere


def check_batch_norm(batch_norm: Any) -> None:
    """Raises a ValueError unless `batch_norm` is one of the three modes."""
    if batch_norm not in MODES:
        raise ValueError(
            f'batch_norm must be "transductive", "support" or "running"; got {batch_norm!r}.'
        )


def batch_norm_layers(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Returns the network's batch-norm layers that are not frozen, nested ones included."""
    return [
        layer
        for layer in keras_internals.layers_of(network)
        if keras_internals.is_stock_batch_norm(layer) and layer.trainable
    ]


def normalises_together(batch_norm: BatchNorm, *networks: keras.Model) -> bool:
    """Returns whether the queries of a task are normalised by their own statistics."""
    return batch_norm == "transductive" and any(batch_norm_layers(n) for n in networks)


def statistics_of(network: keras.Model) -> list[keras.Variable]:
    """Returns the moving averages of the network's batch-norm layers that are not frozen."""
    ids = {id(v) for layer in batch_norm_layers(network) for v in layer.non_trainable_variables}
    return [v for v in network.non_trainable_variables if id(v) in ids]


def prepare_batch_norm(network: keras.Model) -> None:
    """Gives each of a network's stock batch-norm layers the episodic `call`, once.

    Raises:
        ValueError: If a layer that is not frozen renormalises or synchronises its statistics.
    """
    for layer in keras_internals.layers_of(network):
        if not keras_internals.is_stock_batch_norm(layer):
            continue
        keras_internals.replace_call(layer, _episodic_call)
        if not layer.trainable:
            continue
        if keras_internals.uses_batch_renorm(layer):
            raise ValueError(
                f"Batch renormalisation is not defined for episodes: layer {layer.name!r} needs "
                "renorm=False."
            )
        if getattr(layer, "synchronized", False):
            raise ValueError(
                "Statistics of an episode belong to one task and are not synchronised across "
                f"replicas: layer {layer.name!r} needs synchronized=False."
            )


def _episodic_call(layer: keras.layers.BatchNormalization) -> Any:
    """Makes a layer's `call`, which follows the episode; outside of one it is Keras's own."""

    def call(inputs: tf.Tensor, training: Any = None, mask: Any = None) -> tf.Tensor:
        episode = current_episode()
        if episode is None or not layer.trainable:
            return type(layer).call(layer, inputs, training=training, mask=mask)
        if mask is not None and (
            layer.axis % inputs.shape.rank != inputs.shape.rank - 1
            or mask.shape.rank != inputs.shape.rank - 1
        ):
            raise ValueError(
                f"Layer {layer.name!r} gets a Keras mask of shape {tuple(mask.shape)} for inputs "
                f"{tuple(inputs.shape)}; it needs the inputs' shape without the channels, which "
                "must be the last axis (axis=-1)."
            )
        return _normalized(layer, inputs, mask, episode)

    return call


def _normalized(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    keras_mask: tf.Tensor | None,
    episode: Episode,
) -> tf.Tensor:
    x = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    axis = layer.axis % x.shape.rank
    by_own = episode.normalization != "moving"
    weights = _weights(x, episode.mask, keras_mask)
    fast = by_own and weights is None and axis == x.shape.rank - 1 and _has_fast_kernels()
    convolution = episode.convolutions.get(id(inputs)) if fast else None
    mean, variance = layer.moving_mean, layer.moving_variance
    if convolution is not None:
        outputs, mean, variance = convolution.normalized(layer)
    else:
        if by_own and not (fast and episode.normalization == "batch"):
            mean, variance = _weighted_moments(x, axis, weights)
        outputs = (
            _normalized_by_own(layer, x)
            if fast
            else keras.ops.batch_normalization(
                x, mean, variance, axis, layer.beta, layer.gamma, layer.epsilon
            )
        )
    decay = {"update": layer.momentum, "replace": 0.0}.get(episode.normalization, 1.0)
    if decay < 1:
        for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            average.assign(decay * average + (1 - decay) * value)
    return tf.cast(outputs, layer.compute_dtype)


def _has_fast_kernels() -> bool:
    return only_cpu() and not is_vectorizing()


def _normalized_by_own(layer: keras.layers.BatchNormalization, x: tf.Tensor) -> tf.Tensor:
    """Normalises `x` by its own statistics, with the layer's scale and shift."""
    beta = None if layer.beta is None else tf.cast(layer.beta, x.dtype)
    if layer.gamma is None:
        return ops.normalize(x, beta, layer.epsilon)
    outputs = ops.normalize(x, None, layer.epsilon) * tf.cast(layer.gamma, x.dtype)
    return outputs if beta is None else outputs + beta


def _weights(
    x: tf.Tensor, mask: tf.Tensor | None, keras_mask: tf.Tensor | None
) -> tf.Tensor | None:
    """Returns the weights of the values of `x` in its statistics, 0 or 1; None if all are 1.

    Args:
        x: tf.Tensor `[N, …, channels]`.
        mask: tf.Tensor `[N]` or None. 0 for padded examples.
        keras_mask: tf.Tensor `[N, …]` or None. What a Keras layer masks, such as padded time steps.
    """
    if mask is None and keras_mask is None:
        return None
    weights = tf.ones_like(x)
    if mask is not None:
        weights *= tf.reshape(tf.cast(mask, x.dtype), [-1] + [1] * (x.shape.rank - 1))
    if keras_mask is not None:
        weights *= tf.cast(keras_mask, x.dtype)[..., None]
    return weights


def _weighted_moments(
    x: tf.Tensor, axis: int, weights: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and variance over all axes but one, of the values that have a weight."""
    axes = [a for a in range(x.shape.rank) if a != axis]
    if weights is None:
        return moments(x, axes)
    shares = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axes, keepdims=True))
    mean = tf.reduce_sum(shares * x, axes, keepdims=True)
    return tf.reshape(mean, [-1]), tf.reduce_sum(shares * tf.square(x - mean), axes)


# Layers in users' networks also need the right second derivatives.
replacements.install()
