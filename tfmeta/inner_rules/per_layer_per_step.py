"""A meta-learned step size for every weight tensor and inner step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.inner_rules.rule import InnerRule, Step, Tensors, weights_dtype


@keras.saving.register_keras_serializable("tfmeta")
class PerLayerPerStep(InnerRule):
    """A meta-learned step size for every weight tensor and inner step, as in MAML++.

    θ'_l = θ_l − α_{l,k} g_l. All start at the learner's `inner_learning_rate`. More steps than in
    meta-training are an error: nothing was learned for them.

    Reference:
        Antoniou, Edwards, Storkey (2019), How to train your MAML,
        https://arxiv.org/abs/1810.09502, section 4, "Learning per-layer per-step learning rates".
    """

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        self.max_inner_steps = inner_steps
        self.learning_rates = [
            self.add_weight(
                shape=(inner_steps,),
                initializer=keras.initializers.Constant(inner_learning_rate),
                dtype=weights_dtype(weights),
                name=f"rates_{i}",
            )
            for i, _ in enumerate(weights)
        ]

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        triples = zip(weights, self.learning_rates, gradients, strict=True)
        return [w - rate.value[step] * g for w, rate, g in triples], memory
