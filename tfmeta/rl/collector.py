"""Lets policies act, and computes how good each action was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfmeta.rl.advantages import advantages
from tfmeta.rl.by_steps import trajectories_of_steps
from tfmeta.rl.environment import Environment
from tfmeta.rl.policy_inner_loop import Batch, Weights
from tfmeta.rl.trajectories import Trajectories


class Collector:
    """Collects batches for policy gradients, compiled where the environment allows it.

    Args:
        environment: Environment. The family of tasks.
        act: function from each task's weights and observations `[T, N, o]` to the policies'
            outputs `[T, N, 2a]`.
        discount: float in [0, 1]. γ.
        gae_lambda: float in [0, 1]. λ of generalised advantage estimation.
    """

    def __init__(
        self,
        environment: Environment,
        act: Callable[[Weights, tf.Tensor], tf.Tensor],
        *,
        discount: float,
        gae_lambda: float,
    ) -> None:
        self.environment = environment
        self.act = compiled(act)
        self.discount = discount
        self.gae_lambda = gae_lambda
        self._rollout, self._batch = self.rollout, compiled(self._with_advantages)
        if environment.in_graph:
            self._rollout = compiled(self.rollout)

    def rollout(
        self, weights: Weights, tasks: tf.Tensor, n_trajectories: int, seed: tf.Tensor
    ) -> Trajectories:
        """Lets the policies of these weights act, each in its task."""
        return self.environment.rollout(lambda x: self.act(weights, x), tasks, n_trajectories, seed)

    def __call__(
        self,
        weights: Weights,
        tasks: tf.Tensor,
        n_trajectories: int,
        seed: tf.Tensor,
        n_steps: int | None = None,
    ) -> Batch:
        """Returns what the policies of these weights did.

        Args:
            weights: list of tf.Tensor `[T, …]`. Each task's weights.
            tasks: tf.Tensor `[T, task_size]`.
            n_trajectories: int ≥ 1. Trajectories of each task; with `n_steps`, how many of them go
                on side by side.
            seed: tf.Tensor `[2]`, int32. Of start states and actions.
            n_steps: int ≥ 1 or None. If given, steps to collect in each task; see
                `tfmeta.rl.by_steps`. Defaults to None.
        """
        if n_steps is None:
            return self._batch(self._rollout(weights, tasks, n_trajectories, seed))
        fold_in = tf.random.experimental.stateless_fold_in
        return self._batch(
            trajectories_of_steps(
                lambda i: self._rollout(weights, tasks, n_trajectories, fold_in(seed, i)), n_steps
            )
        )

    def _with_advantages(self, trajectories: Trajectories) -> Batch:
        return Batch(trajectories, advantages(trajectories, self.discount, self.gae_lambda))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function as a graph, without AutoGraph."""
    return tf.function(function, autograph=False)
