"""Diagonal Gaussian distributions of actions, given by a policy's outputs: mean and log σ."""

from __future__ import annotations

import math

import tensorflow as tf


def mean_and_log_std(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits a policy's outputs.

    Args:
        outputs: tf.Tensor `[…, 2a]`. The means of a action dimensions, then their log σ.

    Returns:
        Means and log σ, `[…, a]` each.
    """
    # Unstacked instead of split, whose third derivative XLA cannot compile.
    size = outputs.shape[-1] // 2
    pair = tf.reshape(outputs, tf.concat([tf.shape(outputs)[:-1], [2, size]], axis=0))
    mean, log_std = tf.unstack(tf.ensure_shape(pair, [*outputs.shape[:-1], 2, size]), axis=-2)
    return mean, log_std


def sample(outputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws an action from each distribution.

    Args:
        outputs: tf.Tensor `[…, 2a]`. Mean and log σ.
        seed: tf.Tensor `[2]`, int32. The same seed gives the same actions.

    Returns:
        tf.Tensor `[…, a]`.
    """
    mean, log_std = mean_and_log_std(outputs)
    noise = tf.random.stateless_normal(tf.shape(mean), seed, dtype=mean.dtype)
    return mean + tf.exp(log_std) * noise


def log_probability(outputs: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Returns the log density of actions, summed over the dimensions of an action.

    Args:
        outputs: tf.Tensor `[…, 2a]`. Mean and log σ.
        actions: tf.Tensor `[…, a]`.

    Returns:
        tf.Tensor `[…]`.

    Example:

    >>> round(float(log_probability(tf.zeros([1, 2]), tf.zeros([1, 1]))[0]), 4)
    -0.9189
    """
    mean, log_std = mean_and_log_std(outputs)
    z = (actions - mean) * tf.exp(-log_std)
    return -tf.reduce_sum(0.5 * z * z + log_std + 0.5 * math.log(2 * math.pi), axis=-1)


def kl_divergence(outputs: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns KL(p ‖ q) of each pair of distributions.

    Args:
        outputs: tf.Tensor `[…, 2a]`. Mean and log σ of p.
        other: tf.Tensor `[…, 2a]`. Mean and log σ of q.

    Returns:
        tf.Tensor `[…]`.
    """
    mean_p, log_std_p = mean_and_log_std(outputs)
    mean_q, log_std_q = mean_and_log_std(other)
    ratio = tf.exp(2 * (log_std_p - log_std_q))
    distance = (mean_p - mean_q) * tf.exp(-log_std_q)
    return 0.5 * tf.reduce_sum(
        ratio + distance * distance - 1 - 2 * (log_std_p - log_std_q), axis=-1
    )
