"""2-D navigation, the smallest task family of meta-reinforcement learning."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfmeta.checks import check_integer
from tfmeta.rl.environment import Environment

# Numbers of the published environment, which its NumPy twin shares.
MAX_STEP = 0.1
GOAL_RANGE = 0.5
REACHED = 0.01


class Navigation2D(Environment):
    """2-D navigation: move a point in the plane to a goal that the policy is not told.

    The point starts at the origin and sees its position. An action in [−1, 1]² moves it by up to
    0.1 along each axis; a larger one is clipped. The reward is minus the distance from the goal
    after the move. A trajectory ends when the point is within 0.01 of the goal along each axis.
    Goals are uniform in [−0.5, 0.5]². A task is its goal, `[2]`.

    A point that stands still scores −38.3 on average over all goals, and −40.1 over
    `published_tasks()`: the return before adaptation says nothing about learning.

    Args:
        horizon: int ≥ 1. The most steps of a trajectory. Defaults to 100.

    Reference:
        Finn et al. (2017), https://arxiv.org/abs/1703.03400, section 5.3.1; the details are those
        of `point_env_randgoal.py` and rllab's `normalize` in the paper's code,
        https://github.com/cbfinn/maml_rl.

    Example:

    >>> environment = Navigation2D()
    >>> goal, start = tf.constant([[0.3, 0.0]]), tf.zeros([1, 1, 2])
    >>> position, reward, done = environment.step(goal, start, tf.constant([[[5.0, 0.0]]]))
    >>> position.numpy().round(2), reward.numpy().round(2), done.numpy()
    (array([[[0.1, 0. ]]], dtype=float32), array([[-0.2]], dtype=float32), array([[False]]))
    """

    observation_size = 2
    action_size = 2
    task_size = 2

    def __init__(self, *, horizon: int = 100) -> None:
        check_integer("horizon", horizon, 1)
        self.horizon = horizon

    def sample_tasks(self, n_tasks: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform([n_tasks, 2], seed, -GOAL_RANGE, GOAL_RANGE)

    def reset(self, tasks: tf.Tensor, n_trajectories: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.zeros([tasks.shape[0], n_trajectories, 2], tasks.dtype)

    def step(
        self, tasks: tf.Tensor, state: tf.Tensor, action: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        move = tf.clip_by_value(-MAX_STEP + (action + 1) * MAX_STEP, -MAX_STEP, MAX_STEP)
        state = state + move
        difference = state - tasks[:, None]
        reward = -tf.sqrt(tf.reduce_sum(difference * difference, axis=-1))
        return state, reward, tf.reduce_all(tf.abs(difference) < REACHED, axis=-1)

    @staticmethod
    def published_tasks() -> np.ndarray:
        """Returns the 40 goals of the published test, `[40, 2]`: NumPy's old generator, seed 1."""
        return np.random.RandomState(1).uniform(-GOAL_RANGE, GOAL_RANGE, (40, 2))
