"""The base class of meta-learners of policies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfmeta.checks import check_integer, check_model, check_one_of, check_positive
from tfmeta.networks import copy_with_values, values_of
from tfmeta.rl import checkpoint
from tfmeta.rl.collector import Collector, compiled
from tfmeta.rl.environment import Environment
from tfmeta.rl.policies import call_policies, check_policy
from tfmeta.rl.policy_inner_loop import Batch, PolicyInnerLoop, Weights
from tfmeta.rl.trajectories import total_rewards

# Which random numbers a seed is for.
TASKS, ACTIONS, TEST = range(3)

# From each task's weights, and the number of inner steps that led to them.
Collect: TypeAlias = Callable[[Weights, int], Batch]


class PolicyLearner(PolicyInnerLoop):
    """Base class: meta-learn a policy from which a few policy-gradient steps solve a new task.

    The data of a task are what the policy does in it. So a learner is a function of its weights θ
    and of `collect`, which lets policies act, to new weights θ': `meta_step`. A subclass supplies
    `meta_update`, which changes θ by what was collected before, between and after the inner steps.

    Args:
        policy: keras.Model. The policy, from observations `[N, o]` to means and log σ of actions,
            `[N, 2a]`. The learner trains it. See `tfmeta.rl.gaussian_policy`.
        environment: Environment. The family of tasks.
        inner_learning_rate: float > 0. Step size of the inner steps.
        inner_steps: int ≥ 1. Inner steps in meta-training.
        n_trajectories: int ≥ 1. Trajectories of a task before each inner step and after the last.
        meta_batch_size: int ≥ 1. Tasks per iteration.
        discount: float in [0, 1]. γ.
        gae_lambda: float in [0, 1]. λ of generalised advantage estimation.
        inner_surrogate: str. The objective of inner steps: `"ratio"`, whose second derivatives are
            right, or `"log_probability"`, MAML's published code.
        inner_rule: str, dict or InnerRule. How an inner step changes the weights.
        seed: int. Of tasks, start states and actions.
        jit_compile: bool. Whether XLA compiles what is slow, on a CPU.

    Raises:
        ValueError: If an option or the policy does not fit.
    """

    def __init__(
        self,
        policy: keras.Model,
        environment: Environment,
        inner_learning_rate: float,
        *,
        inner_steps: int,
        n_trajectories: int,
        meta_batch_size: int,
        discount: float,
        gae_lambda: float,
        inner_surrogate: str,
        inner_rule: Any,
        seed: int,
        jit_compile: bool,
    ) -> None:
        if not isinstance(environment, Environment):
            raise ValueError(
                f"environment must be a tfmeta.rl.Environment; got {type(environment).__name__}."
            )
        check_model("policy", policy)
        check_policy(policy, environment.observation_size, environment.action_size)
        check_integer("n_trajectories", n_trajectories, 1)
        check_integer("meta_batch_size", meta_batch_size, 1)
        check_integer("seed", seed, 0)
        for name, value in (("discount", discount), ("gae_lambda", gae_lambda)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1]; got {value!r}.")
        super().__init__(
            policy,
            inner_learning_rate,
            inner_steps=inner_steps,
            inner_surrogate=inner_surrogate,
            inner_rule=inner_rule,
            jit_compile=jit_compile,
        )
        self.environment = environment
        self.n_trajectories = n_trajectories
        self.meta_batch_size = meta_batch_size
        self.discount = discount
        self.gae_lambda = gae_lambda
        self.seed = seed
        self.history: list[dict[str, float]] = []
        self._collect = Collector(
            environment,
            lambda weights, x: call_policies(policy, weights, x),
            discount=discount,
            gae_lambda=gae_lambda,
        )
        self._compiled_inner_step = compiled(self.inner_step_by_task)

    # === Variables ===

    @property
    def variables(self) -> list[keras.Variable]:
        """All that training changes, which a checkpoint holds."""
        return [*self.policy.variables, *self.inner_rule.variables]

    def get_config(self) -> dict[str, Any]:
        """Returns the options that a checkpoint must agree with."""
        return {
            "learner": type(self).__name__,
            "environment": self.environment.name,
            "horizon": self.environment.horizon,
            "inner_rule": type(self.inner_rule).__name__,
            "inner_learning_rate": self.inner_learning_rate,
            "inner_steps": self.inner_steps,
            "n_trajectories": self.n_trajectories,
            "meta_batch_size": self.meta_batch_size,
            "discount": self.discount,
            "gae_lambda": self.gae_lambda,
            "inner_surrogate": self.inner_surrogate,
            "seed": self.seed,
        }

    # === Meta-training ===

    def meta_update(self, batches: Sequence[Batch]) -> dict[str, tf.Tensor]:
        """Changes θ; returns numbers to log.

        Args:
            batches: sequence of Batch. What was collected before each inner step, and last what was
                collected after all of them.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement meta_update.")

    def meta_step(self, collect: Collect) -> dict[str, float]:
        """Takes one iteration, (θ, collect) → θ'.

        Args:
            collect: function from each task's weights and a number of inner steps to a Batch: what
                the policies with these weights did.

        Returns:
            dict of float. Numbers to log: `return_0`, `return_1`, … are the mean returns after so
            many inner steps, before θ changed; the others are the learner's.

        Raises:
            ValueError: If a return, or a number that the learner logs, is not finite.
        """
        weights, memory = self.start(self.meta_batch_size)
        batches = [collect(weights, 0)]
        for step in range(self.inner_steps):
            weights, memory = self._compiled_inner_step(weights, memory, batches[-1], step, 1.0)
            batches.append(collect(weights, step + 1))
        numbers = {
            f"return_{step}": tf.reduce_mean(total_rewards(batch.trajectories))
            for step, batch in enumerate(batches)
        }
        numbers |= self.meta_update(batches)
        logs = {name: float(number) for name, number in numbers.items()}
        if not np.isfinite([*logs.values()]).all():
            raise ValueError(
                f"Meta-training diverged, with {logs}: train anew with a smaller "
                "inner_learning_rate."
            )
        return logs

    def fit(
        self,
        iterations: int,
        *,
        folder: str | os.PathLike[str] | None = None,
        save_every: int = 10,
        verbose: int = 1,
    ) -> list[dict[str, float]]:
        """Meta-trains until so many iterations have been taken in all.

        Args:
            iterations: int ≥ 0. The number of iterations of all calls together. A call that was
                interrupted is repeated as it was.
            folder: path. Keeps `checkpoint.npz`, from which the training goes on if it is there.
                Defaults to None: no file is read or written.
            save_every: int ≥ 1. Iterations between checkpoints. Defaults to 10.
            verbose: int. 0: silent, 1: a progress bar, 2: a line per iteration. Defaults to 1.

        Returns:
            list of dict: a row of numbers for each iteration, which are also in `history`.

        Raises:
            ValueError: If the training diverged, or the checkpoint is of another learner or run.
        """
        check_integer("iterations", iterations, 0)
        check_integer("save_every", save_every, 1)
        check_one_of("verbose", verbose, [0, 1, 2])  # type: ignore[list-item]
        path = None if folder is None else Path(folder) / checkpoint.NAME
        if path is not None and path.exists():
            self.history = checkpoint.load(path, self.variables, self.get_config(), self.history)
        bar = keras.utils.Progbar(iterations, verbose=int(verbose == 1), unit_name="iteration")
        while len(self.history) < iterations:
            logs = self.meta_step(self._collector(len(self.history)))
            self.history.append(logs)
            bar.update(len(self.history), list(logs.items()))
            if verbose == 2:
                numbers = ", ".join(f"{name} {value:.4g}" for name, value in logs.items())
                print(f"iteration {len(self.history)} of {iterations}: {numbers}", flush=True)
            if path is not None and (
                len(self.history) % save_every == 0 or len(self.history) == iterations
            ):
                checkpoint.save(path, self.variables, self.get_config(), self.history)
        return self.history

    def _collector(self, iteration: int) -> Collect:
        """Returns `collect` for new tasks, which only the seed and the iteration decide."""
        tasks = self.environment.sample_tasks(self.meta_batch_size, self._seed(TASKS, iteration))

        def collect(weights: Weights, step: int) -> Batch:
            seed = self._seed(ACTIONS, iteration, step)
            return self._collect(weights, tasks, self.n_trajectories, seed)

        return collect

    def _seed(self, *numbers: int) -> tf.Tensor:
        seed = tf.constant([self.seed, 0], tf.int32)
        for number in numbers:
            seed = tf.random.experimental.stateless_fold_in(seed, number)
        return seed

    # === New tasks ===

    def evaluate(
        self,
        tasks: Any,
        *,
        inner_steps: int = 2,
        n_trajectories: int = 40,
        n_steps: int | None = None,
        later_scale: float = 0.5,
        seed: int = 0,
    ) -> np.ndarray:
        """Measures returns after 0, 1, … policy-gradient steps in new tasks.

        With `n_steps=4000`, the others are the published test of MAML: 4,000 steps before each
        policy-gradient step, and half the step size after the first.

        Args:
            tasks: array `[T, task_size]`. The tasks.
            inner_steps: int ≥ 0. Steps. Defaults to 2.
            n_trajectories: int ≥ 1. Trajectories before each step and after the last. Defaults to
                40.
            n_steps: int ≥ 1 or None. If given, so many steps are collected each time instead, at
                `n_trajectories` places side by side; see `tfmeta.rl.by_steps`. Short trajectories
                are then more frequent, and returns a bit higher. Defaults to None.
            later_scale: float > 0. What steps after the first are multiplied by. Defaults to 0.5.
            seed: int. Of start states and actions. Defaults to 0.

        Returns:
            float array `[inner_steps + 1, T]`. The mean over trajectories of the sum of rewards,
            not discounted.
        """
        returns = [
            total_rewards(batch.trajectories).numpy()
            for batch, _ in self.adapting(
                tasks, inner_steps, n_trajectories, later_scale, seed, n_steps
            )
        ]
        return np.stack(returns)

    def adapt(
        self,
        task: Any,
        *,
        inner_steps: int = 1,
        n_trajectories: int = 40,
        n_steps: int | None = None,
        later_scale: float = 0.5,
        seed: int = 0,
    ) -> keras.Model:
        """Adapts the policy to a task.

        Args:
            task: array `[task_size]`. The task, which the environment is told, not the policy.
            inner_steps: int ≥ 0. Steps. Defaults to 1.
            n_trajectories: int ≥ 1. Trajectories before each step. Defaults to 40.
            n_steps: int ≥ 1 or None. Steps before each step instead; see `evaluate`. Defaults to
                None.
            later_scale: float > 0. What steps after the first are multiplied by. Defaults to 0.5.
            seed: int. Of start states and actions. Defaults to 0.

        Returns:
            keras.Model. A copy of the policy, with the task's weights.
        """
        *_, (_, weights) = self.adapting(
            np.asarray(task)[None], inner_steps, n_trajectories, later_scale, seed, n_steps
        )
        return copy_with_values(self.policy, [w[0] for w in weights], values_of(self.policy)[1])

    def adapting(
        self,
        tasks: Any,
        inner_steps: int,
        n_trajectories: int,
        later_scale: float,
        seed: int,
        n_steps: int | None = None,
    ) -> Iterator[tuple[Batch, Weights]]:
        """Yields what was collected after 0, 1, … steps, and the weights that did it.

        Args:
            tasks: array `[T, task_size]`. The tasks.
            inner_steps: int ≥ 0. Steps.
            n_trajectories: int ≥ 1. Trajectories before each step and after the last.
            later_scale: float > 0. What steps after the first are multiplied by.
            seed: int. Of start states and actions.
            n_steps: int ≥ 1 or None. Steps instead of trajectories. Defaults to None.

        Yields:
            The Batch, and the list of each task's weights, `[T, …]`.
        """
        check_integer("inner_steps", inner_steps, 0)
        check_integer("n_trajectories", n_trajectories, 1)
        if n_steps is not None:
            check_integer("n_steps", n_steps, 1)
        check_positive("later_scale", later_scale)
        check_integer("seed", seed, 0)
        self._rule.check_steps(inner_steps)
        tasks = self.environment.check_tasks(tasks)
        weights, memory = self.start(tasks.shape[0])
        for step in range(inner_steps + 1):
            batch = self._collect(
                weights, tasks, n_trajectories, self._seed(TEST, seed, step), n_steps
            )
            yield batch, weights
            if step < inner_steps:
                scale = later_scale if step else 1.0
                weights, memory = self._compiled_inner_step(weights, memory, batch, step, scale)
