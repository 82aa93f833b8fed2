"""2-D navigation as a vector environment of Gymnasium, computed by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmeta.rl.navigation import MAX_STEP, REACHED

try:
    from gymnasium.spaces import Box
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ImportError as error:
    raise ImportError(
        'tfmeta.rl.NavigationVectorEnv needs Gymnasium: pip install "tfmeta[rl]".'
    ) from error


class NavigationVectorEnv(VectorEnv):
    """2-D navigation of many points at once, each to its own goal, for any tool of Gymnasium.

    `tfmeta.rl.Navigation2D` has the rules. Here an action is the move itself, in [−0.1, 0.1]²; a
    larger one is clipped. A point that has reached its goal goes on like any other, because nothing
    is reset before `reset`. It needs `pip install tfmeta[rl]`.

    Args:
        goals: array `[n, 2]`. A goal for each point.

    Raises:
        ValueError: If the goals have another shape.

    Example:

    >>> env = NavigationVectorEnv([[0.3, 0.0]])
    >>> observations, _ = env.reset()
    >>> observations, rewards, done, _, _ = env.step(np.array([[5.0, 0.0]]))
    >>> observations.round(2), rewards.round(2), done
    (array([[0.1, 0. ]], dtype=float32), array([-0.2], dtype=float32), array([False]))
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, goals: Any) -> None:
        self.goals = np.asarray(goals, "float32")
        if self.goals.ndim != 2 or self.goals.shape[1] != 2:
            raise ValueError(f"goals must be an array [n, 2]; got {list(self.goals.shape)}.")
        self.num_envs = len(self.goals)
        self.single_observation_space = Box(-np.inf, np.inf, (2,))
        self.single_action_space = Box(-MAX_STEP, MAX_STEP, (2,))
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._positions = np.zeros([self.num_envs, 2], "float32")

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Puts all points at the origin; nothing is drawn, so the seed has no effect."""
        super().reset(seed=seed, options=options)
        self._positions = np.zeros([self.num_envs, 2], "float32")
        return self._positions.copy(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Moves each point; see `gymnasium.vector.VectorEnv.step`."""
        self._positions = self._positions + np.clip(actions, -MAX_STEP, MAX_STEP, dtype="float32")
        difference = self._positions - self.goals
        rewards = -np.linalg.norm(difference, axis=1)
        done = (np.abs(difference) < REACHED).all(axis=1)
        return self._positions.copy(), rewards, done, np.zeros_like(done), {}
