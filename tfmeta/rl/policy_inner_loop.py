"""The inner loop of a policy: policy-gradient steps from a common start, in each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from tfmeta import inner_rules
from tfmeta.checks import check_integer, check_one_of, check_positive
from tfmeta.learners.gradients import gradients_of
from tfmeta.learners.made_rule import MadeRule
from tfmeta.networks import values_of
from tfmeta.rl import surrogates
from tfmeta.rl.policies import call_policies, repeated, start_weights
from tfmeta.rl.task_means import at_once, each_task, specs
from tfmeta.rl.trajectories import Trajectories

# Each task's values of the policy's trainable variables, `[T, …]` each.
Weights: TypeAlias = list[tf.Tensor]


class Batch(NamedTuple):
    """Trajectories, with how good each action was.

    Attributes:
        trajectories: Trajectories. What policies did.
        advantages: tf.Tensor `[T, N, H]`.
    """

    trajectories: Trajectories
    advantages: tf.Tensor


class PolicyInnerLoop:
    """Adapts a policy to tasks. Its methods are pure functions of each task's weights.

    Args:
        policy: keras.Model. The policy, from observations `[N, o]` to means and log σ of actions,
            `[N, 2a]`.
        inner_learning_rate: float > 0. Step size of the inner steps.
        inner_steps: int ≥ 1. Inner steps in meta-training.
        inner_surrogate: str. The objective of inner steps: `"ratio"`, whose second derivatives are
            right, or `"log_probability"`, MAML's published code.
        inner_rule: str, dict or InnerRule. How an inner step changes the weights.
        jit_compile: bool. Whether XLA compiles what is slow, on a CPU.

    Raises:
        ValueError: If an option does not fit, or the policy has no weights to adapt.
    """

    def __init__(
        self,
        policy: keras.Model,
        inner_learning_rate: float,
        *,
        inner_steps: int,
        inner_surrogate: str,
        inner_rule: Any,
        jit_compile: bool,
    ) -> None:
        check_positive("inner_learning_rate", inner_learning_rate)
        check_integer("inner_steps", inner_steps, 1)
        check_one_of("inner_surrogate", inner_surrogate, list(surrogates.INNER))
        self.policy = policy
        self.inner_learning_rate = inner_learning_rate
        self.inner_steps = inner_steps
        self.inner_surrogate = inner_surrogate
        self.inner_rule = inner_rules.get(inner_rule)
        self.jit_compile = jit_compile
        self._rule = MadeRule(self.inner_rule)
        self._rule.make(policy.trainable_variables, inner_learning_rate, inner_steps)
        self._rule.check_weights(policy.trainable_variables, policy)
        self._rule.check_steps(inner_steps)

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The meta-parameters: the policy's weights, and what the inner rule learns."""
        return [*self.policy.trainable_variables, *self.inner_rule.trainable_variables]

    def start(self, n_tasks: int) -> tuple[Weights, Any]:
        """Returns each task's weights before the first inner step, and the inner rule's memory.

        Args:
            n_tasks: int. T.
        """
        memory = self.inner_rule.start(values_of(self.policy)[0])
        return (
            start_weights(self.policy, n_tasks),
            tf.nest.map_structure(lambda x: repeated(x, n_tasks), memory),
        )

    def inner_step(
        self, weights: Weights, memory: Any, batch: Batch, step: int, scale: float = 1.0
    ) -> tuple[Weights, Any]:
        """Takes a policy-gradient step in each task. It can be differentiated.

        Args:
            weights: list of tf.Tensor `[T, …]`.
            memory: The inner rule's.
            batch: Batch. What the policies of these weights did.
            step: int. Number of the step, from 0.
            scale: float. What the step is multiplied by. Defaults to 1.

        Returns:
            The new weights and memory.
        """
        surrogate = surrogates.INNER[self.inner_surrogate]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            outputs = call_policies(self.policy, weights, batch.trajectories.observations)
            losses = -surrogate(outputs, *batch)
            # No task's loss depends on another task's weights: this gives each its own gradient.
            total = tf.reduce_sum(losses)
        gradients = gradients_of(tape, total, weights)

        def update(task: Any) -> Any:
            old, gradient, loss, memory = task
            new, memory = self.inner_rule.update(old, gradient, loss, memory, step)
            return [w + scale * (n - w) for w, n in zip(old, new, strict=True)], memory

        return at_once(update, (weights, gradients, losses, memory))

    def inner_step_by_task(
        self, weights: Weights, memory: Any, batch: Batch, step: int, scale: float
    ) -> tuple[Weights, Any]:
        """Takes an inner step that will not be differentiated, one task after another."""

        def take_step(task: tuple[Weights, Any, Batch]) -> tuple[Weights, Any]:
            weights, memory, batch = task
            return self.inner_step(weights, memory, batch, step, scale)

        return each_task(
            take_step,
            (weights, memory, batch),
            specs(tf.nest.map_structure(lambda x: x[0], (weights, memory))),
            self.jit_compile,
        )

    def adapted(self, batches: Sequence[Batch]) -> list[Weights]:
        """Returns each task's weights after 0, 1, … inner steps, as functions of θ.

        Args:
            batches: sequence of Batch. What was collected before each step.
        """
        weights, memory = self.start(batches[0].advantages.shape[0])
        by_step = [weights]
        for step, batch in enumerate(batches):
            weights, memory = self.inner_step(weights, memory, batch, step)
            by_step.append(weights)
        return by_step
