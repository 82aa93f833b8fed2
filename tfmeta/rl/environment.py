"""The base class of families of control tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfmeta.rl.rollout import rollout
from tfmeta.rl.trajectories import Trajectories


class Environment:
    """Base class: a family of control tasks, in which TensorFlow computes each step.

    A subclass sets the attributes below and supplies `sample_tasks`, `reset`, `observe` and `step`.
    These are pure functions of tensors, for T tasks and N trajectories of each at once. An
    environment that TensorFlow cannot compute overrides `rollout` instead, and sets `in_graph` to
    False, as `tfmeta.rl.GymnasiumEnvironment` does.
    """

    observation_size: int
    action_size: int
    task_size: int
    horizon: int
    # Whether `rollout` consists of TensorFlow operations, and so can be compiled.
    in_graph: bool = True
    name: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__name__

    def sample_tasks(self, n_tasks: int, seed: tf.Tensor) -> tf.Tensor:
        """Draws tasks.

        Args:
            n_tasks: int. How many.
            seed: tf.Tensor `[2]`, int32. The same seed gives the same tasks.

        Returns:
            tf.Tensor `[n_tasks, task_size]`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement sample_tasks.")

    def reset(self, tasks: tf.Tensor, n_trajectories: int, seed: tf.Tensor) -> tf.Tensor:
        """Returns the states before the first step, `[T, N, …]`.

        Args:
            tasks: tf.Tensor `[T, task_size]`.
            n_trajectories: int. N.
            seed: tf.Tensor `[2]`, int32.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement reset.")

    def observe(self, state: tf.Tensor) -> tf.Tensor:
        """Returns what a policy sees of states: `[T, N, observation_size]`.

        Args:
            state: tf.Tensor `[T, N, …]`.
        """
        return state

    def step(
        self, tasks: tf.Tensor, state: tf.Tensor, action: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Takes a step.

        Args:
            tasks: tf.Tensor `[T, task_size]`.
            state: tf.Tensor `[T, N, …]`.
            action: tf.Tensor `[T, N, action_size]`. The policy's actions; the environment scales
                and clips them.

        Returns:
            The new states; the rewards, `[T, N]`; and whether the trajectory has ended, bool
            `[T, N]`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement step.")

    def rollout(
        self,
        act: Callable[[tf.Tensor], tf.Tensor],
        tasks: tf.Tensor,
        n_trajectories: int,
        seed: tf.Tensor,
    ) -> Trajectories:
        """Lets policies act, each in its task.

        Args:
            act: function from observations `[T, N, o]` to the policies' outputs `[T, N, 2a]`.
            tasks: tf.Tensor `[T, task_size]`.
            n_trajectories: int. Trajectories of each task.
            seed: tf.Tensor `[2]`, int32. The same seed and policies give the same trajectories.

        Returns:
            Trajectories.
        """
        return rollout(self, act, tasks, n_trajectories, seed)

    def check_tasks(self, tasks: Any) -> tf.Tensor:
        """Returns tasks as a tensor `[T, task_size]`.

        Args:
            tasks: array `[T, task_size]`.

        Raises:
            ValueError: If they have another shape, or numbers that are not finite.
        """
        tasks = np.asarray(tasks, "float32")
        if tasks.ndim != 2 or tasks.shape[1] != self.task_size or not len(tasks):
            raise ValueError(
                f"Tasks of {self.name} must be an array [n_tasks, {self.task_size}]; "
                f"got the shape {list(tasks.shape)}."
            )
        if not np.isfinite(tasks).all():
            raise ValueError("Tasks must be finite numbers; some are not.")
        return tf.constant(tasks)
