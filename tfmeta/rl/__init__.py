"""Meta-reinforcement learning: policies that learn a new task from a few trajectories.

It shares the inner rules and the functional networks of the other learners, not their episodes: the
data of a task are what the policy does in it.
"""

from tfmeta.rl.environment import Environment
from tfmeta.rl.gaussian_policy import gaussian_policy
from tfmeta.rl.log_std import StateIndependentLogStd
from tfmeta.rl.maml_trpo import MAMLTRPO
from tfmeta.rl.navigation import Navigation2D
from tfmeta.rl.policy_learner import Batch, PolicyLearner
from tfmeta.rl.pro_mp import ProMP
from tfmeta.rl.trajectories import Trajectories

__all__ = [
    "MAMLTRPO",
    "Batch",
    "Environment",
    "Navigation2D",
    "PolicyLearner",
    "ProMP",
    "StateIndependentLogStd",
    "Trajectories",
    "gaussian_policy",
]
