"""Families of tasks in environments of Gymnasium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfmeta.checks import check_integer
from tfmeta.rl import gaussian
from tfmeta.rl.environment import Environment
from tfmeta.rl.trajectories import Trajectories


class GymnasiumEnvironment(Environment):
    """A family of tasks whose steps a vector environment of Gymnasium takes.

    The policy's actions in [−1, 1] are scaled to the bounds of the action space, and clipped to
    them. It needs `pip install tfmeta[rl]`.

    Args:
        make: function from tasks `[n, task_size]` to a `gymnasium.vector.VectorEnv` of n
            environments, each with its task. It is called for each rollout, and may return the
            vector environment of an earlier one with other tasks.
        sample: function from a number n and a `numpy.random.Generator` to tasks `[n, task_size]`.
        observation_size: int ≥ 1. Numbers in an observation.
        action_size: int ≥ 1. Numbers in an action.
        task_size: int ≥ 1. Numbers that describe a task.
        horizon: int ≥ 1. The most steps of a trajectory.
        name: str. The family's name, which a checkpoint must agree with.

    Example:

    >>> from tfmeta.rl import NavigationVectorEnv
    >>> environment = GymnasiumEnvironment(
    ...     NavigationVectorEnv, lambda n, rng: rng.uniform(-0.5, 0.5, (n, 2)),
    ...     observation_size=2, action_size=2, task_size=2, horizon=5, name="navigation")
    >>> trajectories = environment.rollout(
    ...     lambda x: tf.zeros([1, 3, 4]), [[0.2, 0.1]], 3, tf.constant([0, 0]))
    >>> trajectories.rewards.shape
    TensorShape([1, 3, 5])
    """

    in_graph = False

    def __init__(
        self,
        make: Callable[[np.ndarray], Any],
        sample: Callable[[int, np.random.Generator], Any],
        *,
        observation_size: int,
        action_size: int,
        task_size: int,
        horizon: int,
        name: str,
    ) -> None:
        for argument, value in (
            ("observation_size", observation_size),
            ("action_size", action_size),
            ("task_size", task_size),
            ("horizon", horizon),
        ):
            check_integer(argument, value, 1)
        self.make = make
        self.sample = sample
        self.observation_size = observation_size
        self.action_size = action_size
        self.task_size = task_size
        self.horizon = horizon
        self.name = name

    def sample_tasks(self, n_tasks: int, seed: tf.Tensor) -> tf.Tensor:
        return self.check_tasks(
            self.sample(n_tasks, np.random.default_rng(np.asarray(seed) & MASK))
        )

    def rollout(
        self,
        act: Callable[[tf.Tensor], tf.Tensor],
        tasks: Any,
        n_trajectories: int,
        seed: tf.Tensor,
    ) -> Trajectories:
        tasks = self.check_tasks(tasks).numpy()
        shape = (len(tasks), n_trajectories)
        fold_in = tf.random.experimental.stateless_fold_in
        environment = self.make(np.repeat(tasks, n_trajectories, axis=0))
        low, high = environment.single_action_space.low, environment.single_action_space.high
        start = int(fold_in(seed, -1)[0]) & MASK
        observations, _ = environment.reset(seed=start)
        alive = np.ones(shape, bool)
        rows: list[tuple[Any, ...]] = []
        while len(rows) < self.horizon and alive.any():
            x = np.reshape(observations, [*shape, self.observation_size]).astype("float32")
            outputs = act(tf.constant(x))
            actions = gaussian.sample(outputs, fold_in(seed, len(rows))).numpy()
            scaled = np.clip(low + (actions + 1) * 0.5 * (high - low), low, high)
            observations, rewards, terminated, truncated, _ = environment.step(
                scaled.reshape([-1, self.action_size])
            )
            rewards = rewards.reshape(shape).astype("float32")
            mask = alive.astype("float32")
            rows.append((x, actions, rewards * mask, mask, outputs.numpy()))
            alive &= ~(terminated | truncated).reshape(shape)
        return Trajectories(
            *(_filled(np.stack(column, axis=2), self.horizon) for column in zip(*rows, strict=True))
        )


# Gymnasium's and NumPy's seeds are not negative.
MASK = 0x7FFFFFFF


def _filled(x: np.ndarray, horizon: int) -> tf.Tensor:
    """Fills the axis of time, the third, up with zeros."""
    missing = [(0, 0)] * 2 + [(0, horizon - x.shape[2])] + [(0, 0)] * (x.ndim - 3)
    return tf.constant(np.pad(x, missing))
