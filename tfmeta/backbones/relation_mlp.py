"""A relation module for features that are vectors."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def relation_mlp(
    n_features: int, hidden_units: Sequence[int] = (40, 40), name: str = "relation_mlp"
) -> keras.Model:
    """A multi-layer perceptron with ReLU from a pair of feature vectors to a score.

    The published relation module, `relation_module`, takes maps. This one takes vectors, as the
    encoders of regression tasks return them.

    Args:
        n_features: int. Length of one vector, before concatenation.
        hidden_units: sequence of int. Width of each hidden layer. Defaults to (40, 40).
        name: str. Name of the model. Defaults to "relation_mlp".

    Returns:
        A functional model from `[N, 2·n_features]` to `[N, 1]` scores from 0 to 1.

    Example:

    >>> relation_mlp(8).output_shape
    (None, 1)
    """
    x = pair = keras.Input((2 * n_features,), name="pair")
    for i, units in enumerate(hidden_units, start=1):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden{i}")(x)
    return keras.Model(pair, keras.layers.Dense(1, "sigmoid", name="score")(x), name=name)
