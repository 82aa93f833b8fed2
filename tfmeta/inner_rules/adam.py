"""Adam with fixed settings."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.inner_rules.rule import InnerRule, Step, Tensors


@keras.saving.register_keras_serializable("tfmeta")
class Adam(InnerRule):
    """Adam with bias correction and fixed settings. Nothing is learned about it.

    Args:
        beta_1: float. Decay of the first moment. Defaults to 0, as in Reptile's code.
        beta_2: float. Decay of the second moment. Defaults to 0.999.
        epsilon: float. Added to the root of the second moment. Defaults to 1e-8.

    Reference:
        Kingma, Ba (2015), https://arxiv.org/abs/1412.6980, Algorithm 1.
    """

    def __init__(
        self, beta_1: float = 0.0, beta_2: float = 0.999, epsilon: float = 1e-8, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def start(self, weights: Tensors) -> Any:
        zeros = [tf.zeros_like(w) for w in weights]
        return {"first": zeros, "second": zeros, "count": tf.zeros([], tf.int64)}

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        def decayed(averages: Tensors, values: Tensors, beta: float) -> Tensors:
            pairs = zip(averages, values, strict=True)
            return [beta * average + (1 - beta) * value for average, value in pairs]

        first = decayed(memory["first"], gradients, self.beta_1)
        second = decayed(memory["second"], [tf.square(g) for g in gradients], self.beta_2)
        # Not `step`: the memory may come from an earlier task.
        count = memory["count"] + 1
        # Always use float64: in bfloat16, 0.999 would be 1.
        first_scale, second_scale = (
            1 - beta ** tf.cast(count, tf.float64) for beta in (self.beta_1, self.beta_2)
        )
        rate = self.inner_learning_rate / first_scale
        weights = [
            w
            - tf.cast(rate, w.dtype)
            * m
            / (tf.sqrt(v / tf.cast(second_scale, v.dtype)) + self.epsilon)
            for w, m, v in zip(weights, first, second, strict=True)
        ]
        return weights, {"first": first, "second": second, "count": count}

    def get_config(self) -> dict[str, Any]:
        settings = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **settings}
