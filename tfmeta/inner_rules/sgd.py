"""Gradient descent with a fixed step size."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.inner_rules.rule import InnerRule, Step, Tensors


@keras.saving.register_keras_serializable("tfmeta")
class SGD(InnerRule):
    """Gradient descent with a fixed step size: θ' = θ − α g. Nothing is learned about it."""

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        # Add instead of subtracting, whose gradient needs a negation: a pass over all weights.
        factor = -self.inner_learning_rate
        return [w + factor * g for w, g in zip(weights, gradients, strict=True)], memory
