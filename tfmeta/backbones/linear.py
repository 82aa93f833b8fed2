"""Linear regression and logistic regression."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfmeta.backbones.mlp import mlp


def linear(n_outputs: int, input_shape: Sequence[int], name: str = "linear") -> keras.Model:
    """One linear layer: logistic regression (n_outputs = n_way logits) or linear regression.

    Args:
        n_outputs: int. Number of outputs: n_way logits, or the dimension of y.
        input_shape: sequence of int. Shape of one example. Examples that are not vectors are
            flattened.
        name: str. Name of the model. Defaults to "linear".

    Returns:
        A functional model from `[N, *input_shape]` to `[N, n_outputs]`.

    Example:

    >>> linear(n_outputs=2, input_shape=(8, 8, 1)).count_params()
    130
    """
    return mlp(n_outputs, input_shape, hidden_units=(), name=name)
