"""The Gaussian policy of MAML and ProMP."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfmeta.checks import check_integer
from tfmeta.rl.log_std import StateIndependentLogStd


def gaussian_policy(
    observation_size: int,
    action_size: int,
    *,
    hidden_units: Sequence[int] = (100, 100),
    activation: str = "relu",
    initial_std: float = 1.0,
    min_std: float = 1e-6,
    name: str = "gaussian_policy",
) -> keras.Model:
    """Returns a policy: an MLP from an observation to the mean of an action, with σ as a weight.

    Any other Keras model from observations `[N, o]` to means and log σ, `[N, 2a]`, is one, too.

    Args:
        observation_size: int ≥ 1. Numbers in an observation.
        action_size: int ≥ 1. Numbers in an action.
        hidden_units: sequence of int. Width of each hidden layer. Defaults to (100, 100), as
            MAML's.
        activation: str. Their activation. Defaults to "relu".
        initial_std: float > 0. The initial σ of each action dimension. Defaults to 1.
        min_std: float > 0. The least σ. Defaults to 1e-6.
        name: str. The model's name. Defaults to "gaussian_policy".

    Returns:
        A functional model from `[N, observation_size]` to `[N, 2 * action_size]`.

    Example:

    >>> gaussian_policy(2, 2).count_params()
    10604
    """
    check_integer("observation_size", observation_size, 1)
    check_integer("action_size", action_size, 1)
    x = inputs = keras.Input((observation_size,), name="observation")
    for i, units in enumerate(hidden_units, start=1):
        x = keras.layers.Dense(units, activation=activation, name=f"hidden{i}")(x)
    mean = keras.layers.Dense(action_size, name="mean")(x)
    outputs = StateIndependentLogStd(initial_std=initial_std, min_std=min_std, name="std")(mean)
    return keras.Model(inputs, outputs, name=name)
