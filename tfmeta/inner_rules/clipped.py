"""Any other inner rule, on gradients that are clipped before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.inner_rules.rule import InnerRule, Step, Tensors
from tfmeta.inner_rules.unclipped import UNCLIPPED, rule_of


@keras.saving.register_keras_serializable("tfmeta")
class Clipped(InnerRule):
    """Another inner rule, which gets gradients that are clipped as Keras's optimizers clip theirs.

    With c = `global_clipnorm`, a task's gradients g become g · min(1, c / ‖g‖), ‖g‖ being the norm
    of all of them; with c = `clipvalue`, each number becomes min(max(g, −c), c). What was clipped
    is differentiated as it was computed, so that a second-order meta-gradient is that of the
    clipped step. A gradient that is not finite stays so, and is reported.

    Args:
        rule: str, dict or InnerRule. The other rule, as learners take it. Defaults to `"sgd"`.
        global_clipnorm: float or None. The largest norm, > 0. Defaults to None: any.
        clipvalue: float or None. The largest magnitude of a number, > 0. Defaults to None: any.

    Raises:
        ValueError: If not exactly one of the two is given, or it is not above 0.

    Reference:
        Pascanu, Mikolov, Bengio (2013), On the difficulty of training recurrent neural networks,
        https://arxiv.org/abs/1211.5063, algorithm 1.

    Example:

    >>> import tfmeta
    >>> rule = {"name": "clipped", "rule": "momentum", "global_clipnorm": 10.0}
    >>> learner = tfmeta.MAML(tfmeta.backbones.mlp(), inner_loss="mse", inner_rule=rule)
    >>> learner.inner_rule.rule.momentum.numpy()
    np.float32(0.9)
    """

    def __init__(
        self,
        rule: Any = "sgd",
        global_clipnorm: float | None = None,
        clipvalue: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given = [c for c in (global_clipnorm, clipvalue) if c is not None]
        if len(given) != 1 or isinstance(given[0], bool) or not given[0] > 0:
            raise ValueError(
                "give one of global_clipnorm and clipvalue, a number above 0; got "
                f"global_clipnorm={global_clipnorm!r} and clipvalue={clipvalue!r}."
            )
        self.rule = rule_of(rule, UNCLIPPED)
        self.global_clipnorm, self.clipvalue = global_clipnorm, clipvalue
        self.made_by_weight = self.rule.made_by_weight

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        super().make(weights, inner_learning_rate, inner_steps)
        self.rule.make(weights, inner_learning_rate, inner_steps)
        self.rule.built = True
        self.max_inner_steps = self.rule.max_inner_steps

    def start(self, weights: Tensors) -> Any:
        return self.rule.start(weights)

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        if self.clipvalue is not None:
            gradients = [tf.clip_by_value(g, -self.clipvalue, self.clipvalue) for g in gradients]
        else:
            gradients = clip_by_global_norm(gradients, self.global_clipnorm)
        return self.rule.update(weights, gradients, loss, memory, step)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rule": keras.saving.serialize_keras_object(self.rule),
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Clipped:
        return cls(**{**config, "rule": keras.saving.deserialize_keras_object(config["rule"])})


def clip_by_global_norm(tensors: Tensors, largest: float | None) -> Tensors:
    """Scales tensors so that the norm of all their numbers is at most as large.

    `tf.clip_by_global_norm` has no derivative at zeros, where gradients may well be.

    Args:
        tensors: list of tf.Tensor. Floats of any shapes.
        largest: float. The largest norm, > 0.
    """
    squares = tf.add_n([tf.reduce_sum(tf.square(tf.cast(t, tf.float64))) for t in tensors])
    limit = tf.constant(largest, tf.float64)
    is_larger = squares > tf.square(limit)
    scale = tf.where(is_larger, limit / tf.sqrt(tf.where(is_larger, squares, 1.0)), 1.0)
    return [t * tf.cast(scale, t.dtype) for t in tensors]
