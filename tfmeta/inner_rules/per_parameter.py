"""A meta-learned step size for every parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.inner_rules.rule import InnerRule, Step, Tensors, weights_dtype


@keras.saving.register_keras_serializable("tfmeta")
class PerParameter(InnerRule):
    """A meta-learned step size for every single parameter, as in Meta-SGD: θ' = θ − α ∘ g.

    All start at the learner's `inner_learning_rate`. They are not constrained, and may become
    negative, as in the paper.

    Reference:
        Li, Zhou, Chen, Li (2017), Meta-SGD, https://arxiv.org/abs/1707.09835, equation (2).
    """

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        self.learning_rates = [
            self.add_weight(
                shape=w.shape,
                initializer=keras.initializers.Constant(inner_learning_rate),
                dtype=weights_dtype(weights),
                name=f"rates_{i}",
            )
            for i, w in enumerate(weights)
        ]

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        triples = zip(weights, self.learning_rates, gradients, strict=True)
        return [w - rate.value * g for w, rate, g in triples], memory
