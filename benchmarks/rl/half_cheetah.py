"""Meta-trains a half-cheetah to run forwards or backwards after one policy-gradient step.

    pip install "tfmeta[rl]" "gymnasium[mujoco]"
    python benchmarks/rl/half_cheetah.py runs/half_cheetah --iterations 800

The settings are ProMP's. An iteration simulates 160,000 steps of MuJoCo on one core, so the whole
takes a night or more. The command, repeated, goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

from tfmeta import rl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--horizon", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=40, help="tasks per iteration")
    parser.add_argument("--trajectories", type=int, default=20, help="trajectories per task")
    parser.add_argument("--no-jit-compile", action="store_true", help="for a short trial")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    environment = rl.half_cheetah_direction(arguments.horizon)
    policy = rl.gaussian_policy(
        environment.observation_size,
        environment.action_size,
        hidden_units=(64, 64),
        activation="tanh",
    )
    learner = rl.ProMP(
        policy,
        environment,
        inner_learning_rate=0.1,
        n_trajectories=arguments.trajectories,
        meta_batch_size=arguments.tasks,
        seed=arguments.seed,
        jit_compile=not arguments.no_jit_compile,
    )
    learner.fit(arguments.iterations, folder=arguments.folder, save_every=5, verbose=2)
    returns = learner.evaluate([[1.0], [-1.0]], n_trajectories=arguments.trajectories)
    for direction, row in zip(("forwards", "backwards"), np.transpose(returns), strict=True):
        print(f"{direction}: returns after 0, 1 and 2 steps: {np.round(row, 1).tolist()}")
    policy.save(arguments.folder / "policy.keras")


if __name__ == "__main__":
    main()
