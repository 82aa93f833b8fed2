"""The layer of a policy that holds its spread."""

from __future__ import annotations

import math
from typing import Any

import keras


@keras.saving.register_keras_serializable("tfmeta")
class StateIndependentLogStd(keras.layers.Layer):
    """Appends log σ, a weight that does not depend on the observation, to means of actions.

    Args:
        initial_std: float > 0. The initial σ. Defaults to 1.
        min_std: float > 0. Below it, σ does not count as smaller. Defaults to 1e-6.
        **kwargs: Options of `keras.layers.Layer`.

    Example:

    >>> layer = StateIndependentLogStd(initial_std=1.0)
    >>> layer(keras.ops.ones([2, 3])).shape
    TensorShape([2, 6])
    """

    def __init__(self, *, initial_std: float = 1.0, min_std: float = 1e-6, **kwargs: Any) -> None:
        if not 0 < min_std <= initial_std:
            raise ValueError(
                f"initial_std must be ≥ min_std > 0; got {initial_std!r} and {min_std!r}."
            )
        super().__init__(**kwargs)
        self.initial_std = initial_std
        self.min_std = min_std

    def build(self, input_shape: Any) -> None:
        self.log_std = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(math.log(self.initial_std)),
            name="log_std",
        )

    def call(self, mean: Any) -> Any:
        log_std = keras.ops.maximum(self.log_std, math.log(self.min_std))
        # Stacked, because the second derivative of a concatenation has none that XLA compiles.
        pair = keras.ops.stack([mean, keras.ops.zeros_like(mean) + log_std], axis=-2)
        return keras.ops.reshape(pair, (-1, 2 * mean.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], 2 * input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial_std": self.initial_std, "min_std": self.min_std}
