"""Gradient descent whose step size, momentum and weight decay are meta-learned for every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.inner_rules.rule import InnerRule, Step, Tensors, weights_dtype


@keras.saving.register_keras_serializable("tfmeta")
class Schedule(InnerRule):
    """Gradient descent with a meta-learned step size, momentum and weight decay per inner step.

    In step k, v' = μ_k v + g and θ' = θ − α_k (v' + λ_k θ), from v = 0. All weights share the three
    schedules α, μ and λ, which start constant, at the learner's `inner_learning_rate` and at the
    values given here, and are not constrained. The weight decay is decoupled from the momentum.
    More steps than in meta-training are an error: nothing was learned for them.

    Args:
        momentum: float. Initial μ_k, usually from 0 to 1. Defaults to 0.
        weight_decay: float. Initial λ_k, usually ≥ 0. Defaults to 0.

    Reference:
        Baik, Choi, Choi, Kim, Lee (2020), Meta-Learning with Adaptive Hyperparameters,
        https://arxiv.org/abs/2011.00209: learned rates and weight decay for every step, there made
        by a network for each layer and task. Loshchilov, Hutter (2019), Decoupled Weight Decay
        Regularization, https://arxiv.org/abs/1711.05101.

    Example:

    >>> import tfmeta
    >>> learner = tfmeta.MAML(
    ...     tfmeta.backbones.mlp(), inner_steps=3, inner_loss="mse", inner_rule="schedule"
    ... )
    >>> learner.inner_rule.learning_rate.numpy()
    array([0.01, 0.01, 0.01], dtype=float32)
    """

    made_by_weight = False

    def __init__(self, momentum: float = 0.0, weight_decay: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_momentum, self.initial_weight_decay = momentum, weight_decay

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        self.max_inner_steps = inner_steps
        self.learning_rate, self.momentum, self.weight_decay = (
            self.add_weight(
                shape=(inner_steps,),
                initializer=keras.initializers.Constant(start),
                dtype=weights_dtype(weights),
                name=name,
            )
            for name, start in (
                ("learning_rate", inner_learning_rate),
                ("momentum", self.initial_momentum),
                ("weight_decay", self.initial_weight_decay),
            )
        )

    def start(self, weights: Tensors) -> Any:
        return [tf.zeros_like(w) for w in weights]

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        rate, momentum, decay = (
            schedule.value[step]
            for schedule in (self.learning_rate, self.momentum, self.weight_decay)
        )
        memory = [momentum * v + g for v, g in zip(memory, gradients, strict=True)]
        return [w - rate * (v + decay * w) for w, v in zip(weights, memory, strict=True)], memory

    def get_config(self) -> dict[str, Any]:
        settings = {"momentum": self.initial_momentum, "weight_decay": self.initial_weight_decay}
        return {**super().get_config(), **settings}
