"""Trajectories in environments that TensorFlow computes: a loop of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from tfmeta.rl import gaussian
from tfmeta.rl.trajectories import Trajectories


class Rules(Protocol):
    """The parts of `tfmeta.rl.Environment` that a rollout calls; see there."""

    observation_size: int
    action_size: int
    horizon: int

    def reset(self, tasks: tf.Tensor, n_trajectories: int, seed: tf.Tensor) -> tf.Tensor: ...

    def observe(self, state: tf.Tensor) -> tf.Tensor: ...

    def step(
        self, tasks: tf.Tensor, state: tf.Tensor, action: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]: ...


def rollout(
    environment: Rules,
    act: Callable[[tf.Tensor], tf.Tensor],
    tasks: tf.Tensor,
    n_trajectories: int,
    seed: tf.Tensor,
) -> Trajectories:
    """Lets policies act until all trajectories have ended, or the horizon is reached.

    Args:
        environment: Rules. The tasks' rules.
        act: function from observations `[T, N, o]` to the policies' outputs `[T, N, 2a]`.
        tasks: tf.Tensor `[T, task_size]`.
        n_trajectories: int. N.
        seed: tf.Tensor `[2]`, int32. It fixes the start states and the noise of actions.

    Returns:
        Trajectories, filled up to the horizon.
    """
    n_tasks = tasks.shape[0]
    fold_in = tf.random.experimental.stateless_fold_in
    state = environment.reset(tasks, n_trajectories, fold_in(seed, -1))
    sizes = {
        "observations": [environment.observation_size],
        "actions": [environment.action_size],
        "rewards": [],
        "mask": [],
        "outputs": [2 * environment.action_size],
    }
    arrays = [
        tf.TensorArray(
            state.dtype, size=environment.horizon, element_shape=[n_tasks, n_trajectories, *size]
        )
        for size in sizes.values()
    ]

    def goes_on(step: tf.Tensor, state: tf.Tensor, alive: tf.Tensor, *_: Any) -> tf.Tensor:
        return (step < environment.horizon) & tf.reduce_any(alive)

    def take_step(step: tf.Tensor, state: tf.Tensor, alive: tf.Tensor, *arrays: Any) -> Any:
        observations = environment.observe(state)
        outputs = act(observations)
        actions = gaussian.sample(outputs, fold_in(seed, step))
        new, rewards, done = environment.step(tasks, state, actions)
        mask = tf.cast(alive, state.dtype)
        values = (observations, actions, rewards * mask, mask, outputs)
        written = [a.write(step, x) for a, x in zip(arrays, values, strict=True)]
        return step + 1, new, alive & ~done, *written

    _, _, _, *arrays = tf.while_loop(
        goes_on,
        take_step,
        (tf.constant(0), state, tf.ones([n_tasks, n_trajectories], tf.bool), *arrays),
        parallel_iterations=1,
    )
    # Steps that no trajectory reached were not written, and are read as zeros.
    return Trajectories(*(_time_last(array.stack()) for array in arrays))


def _time_last(x: tf.Tensor) -> tf.Tensor:
    """Moves the axis of time from the front to behind tasks and trajectories."""
    return tf.transpose(x, [1, 2, 0, *range(3, x.shape.rank)])
