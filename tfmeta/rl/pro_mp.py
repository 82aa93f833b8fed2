"""Proximal meta-policy search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.checks import check_integer, check_positive
from tfmeta.learners.gradients import gradients_of
from tfmeta.rl import surrogates
from tfmeta.rl.collector import compiled
from tfmeta.rl.environment import Environment
from tfmeta.rl.policies import call_policies
from tfmeta.rl.policy_inner_loop import Batch
from tfmeta.rl.policy_learner import PolicyLearner
from tfmeta.rl.task_means import SCALAR, mean_over_tasks, specs


class ProMP(PolicyLearner):
    """Proximal meta-policy search: MAML with right second derivatives and PPO as its outer step.

    The outer step is several steps of Adam on the same trajectories. They maximise PPO's clipped
    objective of the adapted policies, as a function of θ through the inner steps, minus a penalty
    for the change of the policies before adaptation.

    Args:
        policy: keras.Model. The policy; the learner trains it. See `tfmeta.rl.gaussian_policy`.
        environment: Environment. The family of tasks.
        inner_learning_rate: float > 0. Step size of the inner steps. Defaults to 0.1.
        inner_steps: int ≥ 1. Inner steps in meta-training. Defaults to 1.
        n_trajectories: int ≥ 1. Trajectories of a task before each inner step and after the last.
            Defaults to 20.
        meta_batch_size: int ≥ 1. Tasks per iteration. Defaults to 40.
        discount: float in [0, 1]. γ. Defaults to 0.99.
        gae_lambda: float in [0, 1]. λ of generalised advantage estimation. Defaults to 1.
        inner_surrogate: str. The objective of inner steps: `"ratio"`, whose second derivatives are
            right, or `"log_probability"`. Defaults to "ratio".
        inner_rule: str, dict or InnerRule. How an inner step changes the weights. Defaults to
            "sgd".
        learning_rate: float > 0. Adam's. Defaults to 1e-3.
        outer_steps: int ≥ 1. Steps of Adam per iteration. Defaults to 5.
        clip: float > 0. How far ratios of probabilities count, ε. Defaults to 0.3.
        kl_penalty: float ≥ 0. The weight η of the divergence. Defaults to 5e-4.
        target_kl: float > 0 or None. If given, η is halved after an iteration whose divergence is
            below `target_kl` / 1.5, and doubled if it is above `1.5 * target_kl`. Defaults to None:
            η stays.
        seed: int. Of tasks, start states and actions. Defaults to 0.
        jit_compile: bool. Whether XLA compiles what is slow, on a CPU. It takes up to a minute at
            the first iteration, and makes the others several times as fast. Defaults to True.

    Raises:
        ValueError: If an option or the policy does not fit.

    Reference:
        Rothfuss et al. (2019), https://arxiv.org/abs/1810.06784, algorithm 1.

    Example:

    >>> from tfmeta import rl
    >>> learner = ProMP(
    ...     rl.gaussian_policy(2, 2, hidden_units=(8,)), rl.Navigation2D(horizon=10),
    ...     n_trajectories=2, meta_batch_size=3, jit_compile=False)
    >>> sorted(learner.fit(iterations=1, verbose=0)[0])
    ['gain', 'kl', 'kl_penalty', 'return_0', 'return_1']
    """

    def __init__(
        self,
        policy: keras.Model,
        environment: Environment,
        inner_learning_rate: float = 0.1,
        *,
        inner_steps: int = 1,
        n_trajectories: int = 20,
        meta_batch_size: int = 40,
        discount: float = 0.99,
        gae_lambda: float = 1.0,
        inner_surrogate: str = "ratio",
        inner_rule: Any = "sgd",
        learning_rate: float = 1e-3,
        outer_steps: int = 5,
        clip: float = 0.3,
        kl_penalty: float = 5e-4,
        target_kl: float | None = None,
        seed: int = 0,
        jit_compile: bool = True,
    ) -> None:
        check_positive("learning_rate", learning_rate)
        check_integer("outer_steps", outer_steps, 1)
        check_positive("clip", clip)
        if not kl_penalty >= 0:
            raise ValueError(f"kl_penalty must be ≥ 0; got {kl_penalty!r}.")
        if target_kl is not None:
            check_positive("target_kl", target_kl)
        super().__init__(
            policy,
            environment,
            inner_learning_rate,
            inner_steps=inner_steps,
            n_trajectories=n_trajectories,
            meta_batch_size=meta_batch_size,
            discount=discount,
            gae_lambda=gae_lambda,
            inner_surrogate=inner_surrogate,
            inner_rule=inner_rule,
            seed=seed,
            jit_compile=jit_compile,
        )
        self.learning_rate = learning_rate
        self.outer_steps = outer_steps
        self.clip = clip
        self.kl_penalty = kl_penalty
        self.target_kl = target_kl
        self._optimizer = keras.optimizers.Adam(learning_rate)
        self._optimizer.build(self.trainable_variables)
        self._kl_weight = keras.Variable(float(kl_penalty), trainable=False, name="kl_weight")
        self._gradients = compiled(self._gradients_of_all)
        self._gain_and_kl = compiled(self._gain_and_kl_of_all)

    @property
    def variables(self) -> list[keras.Variable]:
        return [*super().variables, *self._optimizer.variables, self._kl_weight]

    def get_config(self) -> dict[str, Any]:
        names = ("learning_rate", "outer_steps", "clip", "kl_penalty", "target_kl")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def meta_update(self, batches: Sequence[Batch]) -> dict[str, tf.Tensor]:
        weight = float(self._kl_weight)
        for _ in range(self.outer_steps):
            gradients = self._gradients(batches, tf.constant(weight))
            self._optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        gain, kl = self._gain_and_kl(batches)
        self._kl_weight.assign(self._next_kl_weight(weight, float(kl)))
        return {"gain": gain, "kl": kl, "kl_penalty": weight}

    def _next_kl_weight(self, weight: float, kl: float) -> float:
        """Returns the weight of the divergence in the next iteration, by this one's divergence."""
        if self.target_kl is None:
            return weight
        if kl < self.target_kl / 1.5:
            return weight / 2
        return weight * 2 if kl > self.target_kl * 1.5 else weight

    # === Compiled, as means over tasks ===

    def _gradients_of_all(self, batches: Sequence[Batch], kl_weight: tf.Tensor) -> list[tf.Tensor]:
        """Returns the gradients of what Adam minimises."""
        variables = [v.value for v in self.trainable_variables]

        def of_tasks(batches: Sequence[Batch]) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                gain, kl = self._objective(batches)
                loss = kl_weight * kl - gain
            return gradients_of(tape, loss, variables)

        return mean_over_tasks(of_tasks, batches, specs(variables), self.jit_compile)

    def _gain_and_kl_of_all(self, batches: Sequence[Batch]) -> tuple[tf.Tensor, tf.Tensor]:
        return mean_over_tasks(self._objective, batches, (SCALAR, SCALAR), self.jit_compile)

    def _objective(self, batches: Sequence[Batch]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the objective, and the divergence of the policies before each inner step."""
        *inner, (trajectories, advantages) = batches
        *before, adapted = self.adapted(inner)
        outputs = call_policies(self.policy, adapted, trajectories.observations)
        gains = surrogates.clipped_ratio(outputs, trajectories, advantages, self.clip)
        divergences = [
            surrogates.mean_kl(
                call_policies(self.policy, weights, batch.trajectories.observations),
                batch.trajectories,
            )
            for weights, batch in zip(before, inner, strict=True)
        ]
        return tf.reduce_mean(gains), tf.reduce_mean(tf.stack(divergences))
