"""The first configurations to try in a new task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfmeta.checks import check_integer, check_one_of
from tfmeta.tuning.deep_kernel import DeepKernel
from tfmeta.tuning.greedy_portfolio import greedy_portfolio
from tfmeta.tuning.initial_set import learn_initial_set
from tfmeta.tuning.past_losses import past_losses, scaled, with_fewer_points
from tfmeta.tuning.past_task import PastTask

METHODS = ("portfolio", "learned")


def first_configurations(
    model: DeepKernel,
    past: Sequence[PastTask],
    size: int,
    *,
    method: str = "portfolio",
    seed: int = 0,
) -> np.ndarray:
    """Returns the configurations to begin with, from models of past tasks.

    Past tasks need not have tried the same configurations: what a task did not try is predicted by
    a posterior of `model`. Scores are scaled to losses from 0, the best that was tried, to 1, the
    worst.

    Args:
        model: DeepKernel. The model of all tasks, after `meta_fit`.
        past: sequence of PastTask. The past tasks.
        size: int ≥ 1. How many configurations.
        method: str. `"portfolio"`, chosen greedily among all that were tried in any past task, or
            `"learned"` by `learn_initial_set`. Defaults to "portfolio".
        seed: int. Of the observations used, if a task has very many, and of the learning.

    Returns:
        float64 `[size, d]`; fewer rows if the past tasks tried fewer configurations.

    Raises:
        ValueError: If an option does not fit.
    """
    check_one_of("method", method, METHODS)
    check_integer("size", size, 1)
    tasks = with_fewer_points(past, seed)
    losses = past_losses(model, tasks)
    if method == "learned":
        return learn_initial_set(losses, size, model.n_inputs, seed=seed)
    rows = np.concatenate([task.points for task in tasks])
    candidates, of_rows = np.unique(rows, axis=0, return_inverse=True)
    regrets = np.stack([loss(tf.constant(candidates)).numpy() for loss in losses])
    # What a task did try is known, and needs no model.
    starts = np.cumsum([len(task.scores) for task in tasks])[:-1]
    for regret, tried, task in zip(regrets, np.split(of_rows, starts), tasks, strict=True):
        regret[tried] = scaled(task, np.asarray(task.scores))
    return candidates[greedy_portfolio(regrets, min(size, len(candidates)))]
