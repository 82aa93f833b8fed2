"""Comparisons of queries' features with vectors of a task, in a graph or in a plain Keras model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfmeta.networks import constant_products, repeated


class Comparison(NamedTuple):
    """The operations of a comparison, which differ in a graph and in a plain model of one task.

    Attributes:
        product: function from a tensor `[Q, m]`, a matrix `[m, n]` and a bias `[n]` or None to
            their product plus the bias.
        shifted: function from a tensor `[Q, m]` and a vector `[m]` to their difference.
    """

    product: Callable[..., Any]
    shifted: Callable[[Any, tf.Tensor], Any]


def matrix_product(x: tf.Tensor, matrix: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """Multiplies tensors, and adds a bias if there is one."""
    product = tf.matmul(x, matrix)
    return product if bias is None else product + bias


def shifted_by_constant(x: Any, vector: tf.Tensor) -> Any:
    """Subtracts a constant vector `[m]` from a symbolic tensor `[Q, m]`."""
    return x - repeated(x, vector)


IN_GRAPH = Comparison(matrix_product, tf.subtract)


def with_constants() -> Comparison:
    """Makes the operations of a plain Keras model, whose matrices and vectors are constants."""
    return Comparison(constant_products(), shifted_by_constant)


def negative_squared_distances(
    features: Any, centres: tf.Tensor, product: Callable[..., Any], shifted: Callable[..., Any]
) -> Any:
    """Returns −‖f − c‖² for features `[Q, d]` and centres `[n_way, d]`: `[Q, n_way]`.

    Only a product of matrices is computed of both, so memory does not grow with the features of all
    pairs: −‖f − c‖² = 2 f·c − ‖c‖² − ‖f‖². The centres' mean is subtracted from f and c first. This
    changes no distance, but without it large features would lose their digits.

    Args:
        features: tensor `[Q, d]`.
        centres: tf.Tensor `[n_way, d]`.
        product: function. See `Comparison`; likewise the next.
        shifted: function.
    """
    middle = tf.stop_gradient(tf.reduce_mean(centres, axis=0))
    features, centres = shifted(features, middle), centres - middle
    lengths = tf.reduce_sum(tf.square(centres), axis=-1)
    products = product(features, 2 * tf.transpose(centres), -lengths)
    return products - keras.ops.sum(keras.ops.square(features), axis=-1, keepdims=True)


def unit(x: Any) -> Any:
    """Divides vectors `[…, d]` by their Euclidean length; zeros stay zeros, with gradient 0."""
    squares = keras.ops.sum(keras.ops.square(x), axis=-1, keepdims=True)
    # The square of 1e-12: float32 has no smaller one whose power −3/2, in the gradient, is finite.
    return x * keras.ops.rsqrt(keras.ops.maximum(squares, 1e-24))


def without_missing(logits: tf.Tensor, is_missing: tf.Tensor) -> tf.Tensor:
    """Gives classes without examples the lowest logits, so that they are never predicted.

    Args:
        logits: tf.Tensor `[Q, n_way]`.
        is_missing: tf.Tensor `[n_way]`. 1 for a class without examples, else 0.
    """
    # float16 cannot represent -1e9.
    lowest = tf.constant(max(-1e9, float(logits.dtype.min)), logits.dtype)
    return tf.where(is_missing > 0, lowest, logits)
