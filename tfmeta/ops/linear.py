"""Linear operations with derivatives of every order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def linear(function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """Computes a function that is linear in `x`, so that derivatives of every order are right.

    TensorFlow need only know the function's own gradient. The gradient of that is the function
    again, for it does not depend on `x`.

    Args:
        function: function. It is linear in its one argument, and has no variables.
        x: tf.Tensor. Floats.

    Returns:
        `function(x)`.

    Example:

    >>> x = tf.constant([1.0, 2.0])
    >>> linear(lambda x: 3 * x, x).numpy().tolist()
    [3.0, 6.0]
    """

    @tf.custom_gradient
    def forward(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
        # The gradient is that at any place: keep none of the values.
        zeros = tf.zeros_like(x)

        @tf.custom_gradient
        def transposed(g: tf.Tensor) -> tuple[tf.Tensor, Any]:
            with tf.GradientTape() as tape:
                tape.watch(zeros)
                y = function(zeros)
            gradient = tape.gradient(y, zeros, output_gradients=g)
            return gradient, lambda u: linear(function, u)

        return function(x), transposed

    return forward(x)
