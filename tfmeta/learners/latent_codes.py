"""LEO's normal distributions, its relation network, its inner loss and a penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tfmeta.learners.comparisons import unit, without_missing
from tfmeta.learners.feature_head import class_means

LEAST_DEVIATION = 1e-10


class NormalDraw(NamedTuple):
    """A draw from independent normal distributions, or their means if there is no noise."""

    mean: tf.Tensor  # [S, n]
    deviation: tf.Tensor  # [S, n], at least LEAST_DEVIATION
    noise: tf.Tensor | None  # [S, n], standard normal

    @property
    def values(self) -> tf.Tensor:
        """The draw, `[S, n]`."""
        return self.mean if self.noise is None else self.mean + self.deviation * self.noise

    def log_ratio(self) -> tf.Tensor:
        """Returns ln q(z) − ln p(z) `[S, n]`, p the standard normal density; √(2π) cancels out."""
        noise = tf.zeros_like(self.mean) if self.noise is None else self.noise
        squares = tf.square(self.values) - tf.square(noise)
        return 0.5 * squares - tf.math.log(self.deviation)


def draw(
    parameters: tf.Tensor,
    offset: float | tf.Tensor,
    noise: tf.Tensor | None = None,
    largest: float | None = None,
) -> NormalDraw:
    """Draws from the normal distributions of which a network returns the parameters.

    A network that returns zeros gives distributions with the deviation `offset`.

    Args:
        parameters: tf.Tensor `[S, 2 n]`. The means, and then s: σ = max(exp(s) − (1 − o), 1e-10).
        offset: float or scalar tf.Tensor. o.
        noise: tf.Tensor `[S, n]` or None. Standard normal noise; None for the means. Defaults to
            None.
        largest: float or None. The largest deviation; None for no bound. Defaults to None.
    """
    mean, logarithm = tf.split(parameters, 2, axis=-1)
    if largest is not None:
        # Before the exponential, which overflows.
        bound = tf.math.log(tf.constant(largest + 1, mean.dtype) - offset)
        logarithm = tf.minimum(logarithm, bound)
    deviation = tf.maximum(tf.exp(logarithm) - (1 - offset), LEAST_DEVIATION)
    return NormalDraw(mean, deviation, noise)


def relations(embedded: tf.Tensor, matrices: Sequence[tf.Tensor], members: tf.Tensor) -> tf.Tensor:
    """Returns, for each example, the mean output of a relation network over its pairs with all.

    Args:
        embedded: tf.Tensor `[S, n]`. The examples.
        matrices: sequence of tf.Tensor `[2 n, 2 n]`. The network's layers, with ReLU between them.
        members: tf.Tensor `[S, n_way]`. See `FeatureHead.fit_head`.

    Returns:
        tf.Tensor `[S, 2 n]`.
    """
    first, *others = matrices
    # Of all pairs [e_i, e_j] at once, the first layer is a sum of a term of i and one of j.
    of_left, of_right = (tf.matmul(embedded, half) for half in tf.split(first, 2))
    pairs = of_left[:, None] + of_right[None]
    for matrix in others:
        pairs = tf.tensordot(tf.nn.relu(pairs), matrix, 1)
    counts = tf.cast(exists(members), embedded.dtype)
    return tf.reduce_sum(pairs * counts, axis=1) / tf.reduce_sum(counts)


def summed_loss(features: tf.Tensor, weights: tf.Tensor, members: tf.Tensor) -> tf.Tensor:
    """Returns the sum of the support examples' cross-entropies.

    Args:
        features: tf.Tensor `[S, d]`.
        weights: tf.Tensor `[S, d]`. The weights of each example, of which a class's are the mean.
        members: tf.Tensor `[S, n_way]`. See `FeatureHead.fit_head`.
    """
    logits = tf.matmul(features, class_means(weights, members), transpose_b=True)
    is_missing = tf.cast(tf.reduce_sum(members, axis=0) == 0, logits.dtype)
    # Padding is a member of no class.
    return -tf.reduce_sum(members * tf.nn.log_softmax(without_missing(logits, is_missing)))


def matrix_penalty(matrix: tf.Tensor, l2_weight: float, orthogonality_weight: float) -> tf.Tensor:
    """Returns the penalty of a matrix of weights.

    Args:
        matrix: tf.Tensor `[m, n]`.
        l2_weight: float. The weight of half the sum of its squares.
        orthogonality_weight: float. The weight of the mean squared difference between the cosines
            of its rows and the identity.
    """
    total = l2_weight * tf.nn.l2_loss(matrix)
    if orthogonality_weight:
        rows = unit(matrix)
        cosines = tf.matmul(rows, rows, transpose_b=True)
        errors = cosines - tf.eye(matrix.shape[0], dtype=matrix.dtype)
        total += orthogonality_weight * tf.reduce_mean(tf.square(errors))
    return total


def exists(members: tf.Tensor) -> tf.Tensor:
    """Returns `[S, 1]`: whether a row is an example, not padding.

    Args:
        members: tf.Tensor `[S, n_way]`. See `FeatureHead.fit_head`.
    """
    return tf.reduce_max(members, axis=1, keepdims=True) > 0


def mean_over_examples(values: tf.Tensor, members: tf.Tensor) -> tf.Tensor:
    """Returns the mean of values `[S, n]` of examples, without those of padding.

    Args:
        values: tf.Tensor `[S, n]`.
        members: tf.Tensor `[S, n_way]`. See `FeatureHead.fit_head`.
    """
    is_counted = exists(members)
    total = tf.reduce_sum(tf.where(is_counted, values, tf.zeros([], values.dtype)))
    return total / (tf.reduce_sum(tf.cast(is_counted, values.dtype)) * values.shape[1])
