"""Multi-layer perceptrons, among them the regressor of the sinusoid task."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def mlp(
    n_outputs: int | None = 1,
    input_shape: Sequence[int] = (1,),
    hidden_units: Sequence[int] = (40, 40),
    n_context: int = 0,
    name: str = "mlp",
) -> keras.Model:
    """A multi-layer perceptron with ReLU; by default the 40-40 network of the sinusoid task.

    Args:
        n_outputs: int or None. Number of outputs of the last, linear layer: n_way logits, or the
            dimension of y. With None, the model outputs the features of the last hidden layer, as
            metric learners need them. Defaults to 1.
        input_shape: sequence of int. Shape of one example. Examples that are not vectors are
            flattened. Defaults to (1,).
        hidden_units: sequence of int. Width of each hidden layer. Defaults to (40, 40).
        n_context: int. Number of context parameters, a second input for CAVIA; 0 for none.
            Defaults to 0.
        name: str. Name of the model. Defaults to "mlp".

    Returns:
        A functional model from `[N, *input_shape]` to `[N, n_outputs]` or `[N, features]`. With a
        context, its input is the list `[x [N, *input_shape], context [N, n_context]]`.

    Reference:
        Finn et al. (2017), https://arxiv.org/abs/1703.03400, section 5.1.

    Example:

    >>> mlp().count_params()
    1761
    """
    x = inputs = keras.Input(tuple(input_shape), name="x")
    if len(input_shape) != 1:
        x = keras.layers.Flatten(name="flatten")(x)
    if n_context:
        context = keras.Input((n_context,), name="context")
        x = keras.layers.Concatenate(name="concatenate")([x, context])
        inputs = [inputs, context]
    for i, units in enumerate(hidden_units, start=1):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden{i}")(x)
    if n_outputs is not None:
        x = keras.layers.Dense(n_outputs, name="outputs")(x)
    return keras.Model(inputs, x, name=name)
