"""Gradient descent with a meta-learned step size and momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.inner_rules.rule import InnerRule, Step, Tensors, weights_dtype


@keras.saving.register_keras_serializable("tfmeta")
class Momentum(InnerRule):
    """Gradient descent with momentum, whose step size and momentum are meta-learned scalars.

    v' = μ v + g, θ' = θ − α v', from v = 0. Both start as given and are not constrained.

    Args:
        momentum: float. Initial μ, usually from 0 to 1. Defaults to 0.9.
    """

    made_by_weight = False

    def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_momentum = momentum

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        self.learning_rate = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(inner_learning_rate),
            dtype=weights_dtype(weights),
            name="learning_rate",
        )
        self.momentum = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.initial_momentum),
            dtype=weights_dtype(weights),
            name="momentum",
        )

    def start(self, weights: Tensors) -> Any:
        return [tf.zeros_like(w) for w in weights]

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        momentum, rate = self.momentum.value, self.learning_rate.value
        memory = [momentum * v + g for v, g in zip(memory, gradients, strict=True)]
        return [w - rate * v for w, v in zip(weights, memory, strict=True)], memory

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.initial_momentum}
