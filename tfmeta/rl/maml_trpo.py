"""MAML for reinforcement learning, with TRPO as its outer step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.checks import check_integer, check_positive
from tfmeta.learners.gradients import gradients_of
from tfmeta.rl import surrogates
from tfmeta.rl.collector import compiled
from tfmeta.rl.conjugate_gradient import conjugate_gradient, flatten, unflatten
from tfmeta.rl.environment import Environment
from tfmeta.rl.policies import call_policies
from tfmeta.rl.policy_inner_loop import Batch
from tfmeta.rl.policy_learner import PolicyLearner
from tfmeta.rl.task_means import SCALAR, mean_over_tasks, specs


class MAMLTRPO(PolicyLearner):
    """MAML for reinforcement learning: policy-gradient inner steps, TRPO as the outer step.

    An iteration draws tasks, lets the policy act in each, takes inner steps, lets the adapted
    policies act, and changes θ so that the adapted policies gain most, while they change by a mean
    KL divergence of at most `max_kl`: a natural gradient by conjugate gradients, scaled to that
    divergence, and a backtracking line search.

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
        inner_surrogate: str. The objective of inner steps: `"log_probability"`, the published
            code's, whose second derivatives are biased, or `"ratio"`, whose second derivatives are
            right. Defaults to "log_probability", which did far better on 2-D navigation.
        inner_rule: str, dict or InnerRule. How an inner step changes the weights. Defaults to
            "sgd".
        max_kl: float > 0. The largest mean KL divergence of a step. Defaults to 0.01.
        cg_iterations: int ≥ 1. Iterations of conjugate gradients. Defaults to 10.
        damping: float > 0. What is added to the diagonal of the Fisher matrix. Defaults to 1e-5.
        line_search_steps: int ≥ 1. The most steps that are tried, each 0.8 times the one before.
            If none is better within `max_kl`, θ stays. Defaults to 15.
        fisher_trajectories: int ≥ 1 or None. How many trajectories of a task the Fisher matrix is
            computed from, which only decides the direction and first length of a step. Defaults to
            None: all.
        seed: int. Of tasks, start states and actions. Defaults to 0.
        jit_compile: bool. Whether XLA compiles what is slow, on a CPU. It takes up to a minute at
            the first iteration, and makes the others several times as fast. Defaults to True.

    Raises:
        ValueError: If an option or the policy does not fit.

    Reference:
        Finn et al. (2017), https://arxiv.org/abs/1703.03400, algorithm 3; Schulman et al. (2015),
        TRPO, https://arxiv.org/abs/1502.05477, appendix C.

    Example:

    >>> from tfmeta import rl
    >>> learner = MAMLTRPO(
    ...     rl.gaussian_policy(2, 2, hidden_units=(8,)), rl.Navigation2D(horizon=10),
    ...     n_trajectories=2, meta_batch_size=3, cg_iterations=2, jit_compile=False)
    >>> len(learner.fit(iterations=1, verbose=0))
    1
    >>> learner.evaluate([[0.3, -0.2]], n_trajectories=2).shape
    (3, 1)
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
        inner_surrogate: str = "log_probability",
        inner_rule: Any = "sgd",
        max_kl: float = 0.01,
        cg_iterations: int = 10,
        damping: float = 1e-5,
        line_search_steps: int = 15,
        fisher_trajectories: int | None = None,
        seed: int = 0,
        jit_compile: bool = True,
    ) -> None:
        check_positive("max_kl", max_kl)
        check_integer("cg_iterations", cg_iterations, 1)
        check_positive("damping", damping)
        check_integer("line_search_steps", line_search_steps, 1)
        if fisher_trajectories is not None:
            check_integer("fisher_trajectories", fisher_trajectories, 1)
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
        self.max_kl = max_kl
        self.cg_iterations = cg_iterations
        self.damping = damping
        self.line_search_steps = line_search_steps
        self.fisher_trajectories = fisher_trajectories
        self._gain_and_gradient = compiled(self._gain_and_gradient_of_all)
        self._fisher_product = compiled(self._fisher_product_of_all)
        self._gain_and_kl = compiled(self._gain_and_kl_of_all)

    def get_config(self) -> dict[str, Any]:
        names = ("max_kl", "cg_iterations", "damping", "line_search_steps", "fisher_trajectories")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def meta_update(self, batches: Sequence[Batch]) -> dict[str, tf.Tensor]:
        before, gradient = self._gain_and_gradient(batches)
        part = tf.nest.map_structure(lambda x: x[:, : self.fisher_trajectories], batches)
        direction, residual = conjugate_gradient(
            lambda vector: self._fisher_product(part, vector) + self.damping * vector,
            gradient,
            self.cg_iterations,
        )
        # The length that the quadratic model of the divergence allows.
        curvature = tf.tensordot(direction, gradient - residual, 1)
        step = direction * tf.sqrt(tf.math.divide_no_nan(2 * self.max_kl, curvature))
        start = [tf.identity(v.value) for v in self.trainable_variables]
        for trial in range(self.line_search_steps):
            self._move(start, 0.8**trial * step)
            gain, kl = self._gain_and_kl(batches)
            if gain > before and kl <= self.max_kl:
                return {"gain": gain - before, "kl": kl}
        self._move(start, tf.zeros_like(step))
        return {"gain": tf.constant(0.0), "kl": tf.constant(0.0)}

    def _move(self, start: list[tf.Tensor], step: tf.Tensor) -> None:
        changes = unflatten(step, start)
        for variable, value, change in zip(self.trainable_variables, start, changes, strict=True):
            variable.assign(value + change)

    # === Compiled, as means over tasks ===

    def _gain_and_gradient_of_all(self, batches: Sequence[Batch]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the adapted policies' objective and its gradient by θ, as a vector."""
        variables = [v.value for v in self.trainable_variables]

        def of_tasks(batches: Sequence[Batch]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape() as tape:
                gain, _ = self._objective(batches)
            return gain, gradients_of(tape, gain, variables)

        gain, gradient = mean_over_tasks(
            of_tasks, batches, (SCALAR, specs(variables)), self.jit_compile
        )
        return gain, flatten(gradient)

    def _fisher_product_of_all(self, batches: Sequence[Batch], vector: tf.Tensor) -> tf.Tensor:
        """Multiplies the Fisher matrix of the adapted policies by a vector."""
        variables = [v.value for v in self.trainable_variables]

        def of_tasks(batches: Sequence[Batch]) -> list[tf.Tensor]:
            with tf.GradientTape() as outer:
                with tf.GradientTape() as tape:
                    *inner, (trajectories, _) = batches
                    weights = self.adapted(inner)[-1]
                    outputs = call_policies(self.policy, weights, trajectories.observations)
                    # Where a policy is compared with itself, the Hessian of the divergence is the
                    # Fisher matrix.
                    acted = trajectories._replace(outputs=tf.stop_gradient(outputs))
                    divergence = tf.reduce_mean(surrogates.mean_kl(outputs, acted))
                gradient = gradients_of(tape, divergence, variables)
                along = tf.tensordot(flatten(gradient), vector, 1)
            return gradients_of(outer, along, variables)

        return flatten(mean_over_tasks(of_tasks, batches, specs(variables), self.jit_compile))

    def _gain_and_kl_of_all(self, batches: Sequence[Batch]) -> tuple[tf.Tensor, tf.Tensor]:
        return mean_over_tasks(self._objective, batches, (SCALAR, SCALAR), self.jit_compile)

    def _objective(self, batches: Sequence[Batch]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what adapted policies gain, and how far they are from those that acted."""
        *inner, (trajectories, advantages) = batches
        weights = self.adapted(inner)[-1]
        outputs = call_policies(self.policy, weights, trajectories.observations)
        gains = surrogates.ratio(outputs, trajectories, advantages)
        divergences = surrogates.mean_kl(outputs, trajectories)
        return tf.reduce_mean(gains), tf.reduce_mean(divergences)
