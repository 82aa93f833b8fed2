"""Meta-reinforcement learning: policies that learn a new task from a few trajectories.

It shares the inner rules and the functional networks of the other learners, not their episodes: the
data of a task are what the policy does in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfmeta.rl.environment import Environment
from tfmeta.rl.gaussian_policy import gaussian_policy
from tfmeta.rl.gymnasium_environment import GymnasiumEnvironment
from tfmeta.rl.half_cheetah import half_cheetah_direction
from tfmeta.rl.log_std import StateIndependentLogStd
from tfmeta.rl.maml_trpo import MAMLTRPO
from tfmeta.rl.navigation import Navigation2D
from tfmeta.rl.policy_inner_loop import Batch
from tfmeta.rl.policy_learner import PolicyLearner
from tfmeta.rl.pro_mp import ProMP
from tfmeta.rl.trajectories import Trajectories

if TYPE_CHECKING:
    from tfmeta.rl.navigation_gym import NavigationVectorEnv as NavigationVectorEnv

# `NavigationVectorEnv` is public, too, but `from tfmeta.rl import *` must not need Gymnasium.
__all__ = [
    "MAMLTRPO",
    "Batch",
    "Environment",
    "GymnasiumEnvironment",
    "Navigation2D",
    "PolicyLearner",
    "ProMP",
    "StateIndependentLogStd",
    "Trajectories",
    "gaussian_policy",
    "half_cheetah_direction",
]


def __getattr__(name: str) -> Any:
    """Imports what needs Gymnasium when it is first used (PEP 562)."""
    if name != "NavigationVectorEnv":
        raise AttributeError(f"module 'tfmeta.rl' has no attribute {name!r}")
    from tfmeta.rl.navigation_gym import NavigationVectorEnv

    return NavigationVectorEnv
