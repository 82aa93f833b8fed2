"""Draws trajectories of 2-D navigation before adaptation, and after one and two steps.

    python docs/images/navigation.py runs/navigation/policy.keras docs/images/navigation.png

The policy is that of benchmarks/rl/navigation.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from tfmeta import rl
from tfmeta.files import replacing

N_TASKS, N_SHOWN, STEPS = 4, 6, 2
TITLES = ("before adaptation", "after one step", "after two steps")


def trajectories_by_step(learner: rl.PolicyLearner, tasks: np.ndarray) -> list[rl.Trajectories]:
    """Returns what the policies do after 0, 1 and 2 steps of the published test."""
    found = learner.adapting(tasks, STEPS, n_trajectories=40, later_scale=0.5, seed=0)
    return [batch.trajectories for batch, _ in found]


def main() -> None:
    policy_file, picture = Path(sys.argv[1]), Path(sys.argv[2])
    policy = keras.models.load_model(policy_file)
    environment = rl.Navigation2D()
    learner = rl.MAMLTRPO(policy, environment, inner_learning_rate=0.5)
    # Goals far from the start and from each other show most.
    tasks = environment.published_tasks()
    far = np.argsort(-np.linalg.norm(tasks, axis=1))[:12]
    angles = np.arctan2(tasks[far, 1], tasks[far, 0])
    tasks = tasks[far[np.argsort(angles)][:: 12 // N_TASKS]]

    figure, axes = plt.subplots(1, STEPS + 1, figsize=(9, 3.3), sharex=True, sharey=True)
    figure.set_layout_engine("constrained")
    for axis, title, collected in zip(
        axes, TITLES, trajectories_by_step(learner, tasks), strict=True
    ):
        for task, goal in enumerate(tasks):
            colour = f"C{task}"
            for i in range(N_SHOWN):
                steps = int(np.sum(collected.mask[task, i]))
                path = np.asarray(collected.observations[task, i, :steps])
                # Where the last action led to is not observed.
                action = np.clip(np.asarray(collected.actions[task, i, steps - 1]), -1, 1)
                path = np.concatenate([path, path[-1:] + 0.1 * action])
                axis.plot(*path.T, color=colour, linewidth=0.8, alpha=0.7)
            axis.plot(*goal, "o", color=colour, markeredgecolor="black", markersize=7, zorder=3)
        axis.plot(0, 0, "k+", markersize=9, zorder=3)
        total = np.sum(collected.rewards * collected.mask, axis=2).mean()
        axis.set_title(f"{title}: mean return {total:.1f}", fontsize=9)
        axis.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), aspect="equal")
        axis.grid(alpha=0.3)
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=130)


if __name__ == "__main__":
    main()
