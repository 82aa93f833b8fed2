"""The first configurations to try in a new task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfmeta.checks import check_integer, check_one_of
from tfmeta.tuning.deep_kernel import DeepKernel
from tfmeta.tuning.greedy_portfolio import greedy_portfolio
from tfmeta.tuning.initial_set import learn_initial_set
from tfmeta.tuning.past_task import PastTask

METHODS = ("portfolio", "learned")
# A posterior takes memory and time that grow with the square and the cube of this.
MOST_POINTS = 500


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
    generator = np.random.default_rng(seed)
    tasks = [_some(task, generator) for task in past]
    losses = [_losses(model, task) for task in tasks]
    if method == "learned":
        return learn_initial_set(losses, size, model.n_inputs, seed=seed)
    rows = np.concatenate([task.points for task in tasks])
    candidates, of_rows = np.unique(rows, axis=0, return_inverse=True)
    regrets = np.stack([loss(tf.constant(candidates)).numpy() for loss in losses])
    # What a task did try is known, and needs no model.
    starts = np.cumsum([len(task.scores) for task in tasks])[:-1]
    for regret, tried, task in zip(regrets, np.split(of_rows, starts), tasks, strict=True):
        regret[tried] = _scaled(task, np.asarray(task.scores))
    return candidates[greedy_portfolio(regrets, min(size, len(candidates)))]


def _some(task: PastTask, generator: np.random.Generator) -> PastTask:
    """Returns a task with at most `MOST_POINTS` observations: half the best, half at random."""
    if len(task.scores) <= MOST_POINTS:
        return task
    order = np.argsort(-np.asarray(task.scores))
    half = MOST_POINTS // 2
    rows = [*order[:half], *generator.choice(order[half:], MOST_POINTS - half, replace=False)]
    return PastTask(np.asarray(task.points)[rows], np.asarray(task.scores)[rows])


def _losses(model: DeepKernel, task: PastTask) -> Callable[[tf.Tensor], tf.Tensor]:
    predict = model.posterior_of(task)
    return lambda points: _scaled(task, predict(points)[0])


def _scaled(task: PastTask, scores: Any) -> Any:
    """Returns scores as losses: 0 for the best one that the task has, 1 for the worst."""
    best, spread = float(np.max(task.scores)), float(np.ptp(task.scores)) or 1.0
    return (best - scores) / spread
