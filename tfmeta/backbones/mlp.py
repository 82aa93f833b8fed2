"""Small networks over vectors: the regressor of the sinusoid task, and linear models."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def mlp(
    n_outputs: int = 1,
    input_shape: Sequence[int] = (1,),
    hidden_units: Sequence[int] = (40, 40),
    name: str = "mlp",
) -> keras.Model:
    """A multi-layer perceptron with ReLU; by default the 40-40 network of the sinusoid task.

    Args:
        n_outputs: Outputs of the last, linear layer: n_way logits, or the dimension of y.
        input_shape: Shape of one example; flattened where it is not a vector.
        hidden_units: Width of each hidden layer.
        name: Name of the model.

    Returns:
        A functional model from `[N, *input_shape]` to `[N, n_outputs]`.

    Reference:
        Finn et al. (2017), https://arxiv.org/abs/1703.03400, section 5.1.

    Example:

    >>> mlp().count_params()
    1761
    """
    x = inputs = keras.Input(tuple(input_shape), name="x")
    if len(input_shape) != 1:
        x = keras.layers.Flatten(name="flatten")(x)
    for i, units in enumerate(hidden_units, start=1):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden{i}")(x)
    return keras.Model(inputs, keras.layers.Dense(n_outputs, name="outputs")(x), name=name)
