"""Products with constants, for the plain Keras models of learned tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def constant_products() -> Callable[..., Any]:
    """Makes a function that multiplies symbolic tensors by constant matrices.

    It consists of stock Keras layers, so a model built with it loads without tfmeta. The same
    matrix has one layer, however often it is used.

    Returns:
        A function from a symbolic tensor `[N, m]`, a matrix `[m, n]` and a bias `[n]` (None by
        default) to their product plus the bias, `[N, n]`.
    """
    layers: dict[int, tuple[keras.layers.Layer, tf.Tensor]] = {}

    def product(x: Any, matrix: tf.Tensor, bias: tf.Tensor | None = None) -> Any:
        if id(matrix) not in layers:
            rows, columns = matrix.shape
            dtype = matrix.dtype.name
            layer = keras.layers.Dense(columns, use_bias=bias is not None, dtype=dtype)
            layer.build((None, rows))
            layer.set_weights([np.asarray(w) for w in (matrix, bias) if w is not None])
            # Keep the matrix: the `id` of one that is gone may be that of another.
            layers[id(matrix)] = layer, matrix
        return layers[id(matrix)][0](x)

    return product
