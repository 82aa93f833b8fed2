"""A half-cheetah that learns which way to run."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmeta.rl.gymnasium_environment import GymnasiumEnvironment

CONTROL_COST = 0.05


def half_cheetah_direction(horizon: int = 100) -> GymnasiumEnvironment:
    """Returns the tasks of running forwards or backwards, in MuJoCo's half-cheetah.

    A task is a direction, `[1]`: 1 or −1, with equal probability. The reward of a step is the
    velocity in that direction minus 0.05 ‖a‖². Trajectories never end before the horizon. It needs
    `pip install "gymnasium[mujoco]"`.

    The tasks are those of ProMP's code. Observations are the 17 numbers of Gymnasium's
    `HalfCheetah-v5`; ProMP's has the position of the torso, too.

    Args:
        horizon: int ≥ 1. Steps of a trajectory. Defaults to 100.

    Returns:
        GymnasiumEnvironment. It keeps its simulations from rollout to rollout.

    Reference:
        Rothfuss et al. (2019), https://arxiv.org/abs/1810.06784, section 6.

    Example:

    >>> environment = half_cheetah_direction(horizon=10)
    >>> environment.observation_size, environment.action_size
    (17, 6)
    """
    try:
        import gymnasium
        import mujoco  # noqa: F401
        from gymnasium.vector import AutoresetMode, SyncVectorEnv
    except ImportError as error:
        raise ImportError(
            'The half-cheetah needs Gymnasium and MuJoCo: pip install "gymnasium[mujoco]".'
        ) from error

    class Direction(gymnasium.Wrapper):
        """One half-cheetah, rewarded for running in a direction."""

        direction = 1.0

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            observation, _, terminated, truncated, info = self.env.step(action)
            cost = CONTROL_COST * float(np.square(action).sum())
            reward = self.direction * float(info["x_velocity"]) - cost
            # Only numbers that are used: collecting all of them takes longer than the simulation.
            return observation, reward, terminated, truncated, {}

    kept: dict[int, Any] = {}

    def make(tasks: np.ndarray) -> Any:
        n = len(tasks)
        if n not in kept:
            kept.clear()
            kept[n] = SyncVectorEnv(
                [
                    lambda: Direction(
                        gymnasium.make("HalfCheetah-v5", max_episode_steps=horizon + 1).unwrapped
                    )
                ]
                * n,
                autoreset_mode=AutoresetMode.DISABLED,
            )
        for environment, direction in zip(kept[n].envs, tasks[:, 0], strict=True):
            environment.direction = float(direction)
        return kept[n]

    return GymnasiumEnvironment(
        make,
        lambda n, rng: rng.choice([-1.0, 1.0], (n, 1)),
        observation_size=17,
        action_size=6,
        task_size=1,
        horizon=horizon,
        name="half_cheetah_direction",
    )
