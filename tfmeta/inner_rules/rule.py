"""The base class of inner update rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

Tensors = list[tf.Tensor]
# A number if inner steps are unrolled, a scalar int32 tensor if they are a loop of the graph.
Step: TypeAlias = int | tf.Tensor


@keras.saving.register_keras_serializable("tfmeta")
class InnerRule(keras.layers.Layer):
    """Base class of inner update rules: a Keras layer whose variables are meta-parameters.

    A rule supplies `update`, and if it needs them `make` (its meta-parameters) and `start` (its
    memory at a task's first step). The learner meta-learns a rule's trainable variables along with
    the initialisation.

    Example:

    >>> class Signs(InnerRule):
    ...     def update(self, weights, gradients, loss, memory, step):
    ...         rate = self.inner_learning_rate
    ...         pairs = zip(weights, gradients, strict=True)
    ...         return [w - rate * tf.sign(g) for w, g in pairs], memory
    >>> import tfmeta
    >>> learner = tfmeta.MAML(tfmeta.backbones.mlp(), inner_loss="mse", inner_rule=Signs())
    >>> learner.adapt([[0.0]], [[1.0]]).predict(tf.zeros([1, 1]), verbose=0).shape
    (1, 1)
    """

    # The most inner steps that the rule is defined for; None for any number.
    max_inner_steps: int | None = None

    # Whether the meta-parameters are those of the weights that `make` got, so that the rule serves
    # no others. False for a rule that shares its meta-parameters among all weights.
    made_by_weight: bool = True

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        """Creates the meta-parameters. The learner calls it once, when the shapes are known.

        Args:
            weights: list of keras.Variable or tf.Tensor. They have the shapes and dtypes of the
                values that the rule will change.
            inner_learning_rate: float. The learner's (initial) step size.
            inner_steps: int. The learner's inner steps in meta-training.
        """
        self.inner_learning_rate = inner_learning_rate

    def start(self, weights: Tensors) -> Any:
        """Returns the rule's memory before a task's first step, a nesting of tensors.

        With `carry_moments` of `tfmeta.Reptile`, a task starts from an earlier task's memory. What
        counts steps over tasks belongs into the memory, for `step` starts anew.

        `update` must return the memory in the same nesting, with the same shapes and dtypes: inner
        steps may be a loop of the graph.
        """
        return ()

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        """Takes one inner step. It is pure, and differentiable by its arguments and variables.

        Args:
            weights: list of tf.Tensor. The values that adapt.
            gradients: list of tf.Tensor. Those of the support set's loss by these values.
            loss: tf.Tensor, scalar. The loss.
            memory: What `start` or the last step returned.
            step: int or tf.Tensor. Number of the step, from 0: an integer, or in a loop of the
                graph (in `tfmeta.Reptile`, and when a learner is evaluated after each of its steps)
                a scalar int32 tensor, by which Python can neither branch nor index a list.

        Returns:
            The new values, and the memory.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement update.")


def weights_dtype(weights: Sequence[keras.Variable]) -> str:
    """Returns the float type of the weights, which may differ from the global one."""
    return keras.backend.standardize_dtype(weights[0].dtype)
