"""Linear equations whose matrix is only known by its products with vectors."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def conjugate_gradient(
    product: Callable[[tf.Tensor], tf.Tensor], b: tf.Tensor, iterations: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Solves A x = b for a symmetric positive definite A, approximately.

    Args:
        product: function from x to A x.
        b: tf.Tensor `[n]`.
        iterations: int. After n iterations, the solution is exact but for rounding.

    Returns:
        x and the residual, b − A x, `[n]` each.

    Example:

    >>> x, residual = conjugate_gradient(
    ...     lambda x: tf.constant([2.0, 4.0]) * x, tf.constant([2.0, 2.0]), iterations=2)
    >>> x.numpy().round(4).tolist()
    [1.0, 0.5]
    """
    x, residual, direction = tf.zeros_like(b), b, b
    squared = tf.tensordot(residual, residual, 1)
    for _ in range(iterations):
        image = product(direction)
        # Without a residual, all is solved: 0 / 0 counts as 0.
        step = tf.math.divide_no_nan(squared, tf.tensordot(direction, image, 1))
        x = x + step * direction
        residual = residual - step * image
        new = tf.tensordot(residual, residual, 1)
        direction = residual + tf.math.divide_no_nan(new, squared) * direction
        squared = new
    return x, residual


def flatten(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Joins tensors into a vector."""
    return tf.concat([tf.reshape(x, [-1]) for x in tensors], axis=0)


def unflatten(vector: tf.Tensor, like: list[tf.Tensor]) -> list[tf.Tensor]:
    """Splits a vector into tensors with the shapes of others."""
    parts = tf.split(vector, [x.shape.num_elements() for x in like])
    return [tf.reshape(part, x.shape) for part, x in zip(parts, like, strict=True)]
