"""Past tasks as functions, on one scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfmeta.tuning.deep_kernel import DeepKernel
from tfmeta.tuning.past_task import PastTask

# A posterior takes memory and time that grow with the square and the cube of this.
MOST_POINTS = 500


def past_losses(model: DeepKernel, past: Sequence[PastTask]) -> list[Callable[[Any], tf.Tensor]]:
    """Returns for each past task a function from points to losses, by the model's posterior.

    Args:
        model: DeepKernel. The model of all tasks, after `meta_fit`.
        past: sequence of PastTask. The past tasks.

    Returns:
        list of Callable from float64 `[N, d]` to `[N]`. 0 is the best score that was tried in the
        task, 1 the worst. They are differentiable.
    """

    def of_task(task: PastTask) -> Callable[[Any], tf.Tensor]:
        predict = model.posterior_of(task)
        return lambda points: scaled(task, predict(points)[0])

    return [of_task(task) for task in past]


def scaled(task: PastTask, scores: Any) -> Any:
    """Returns scores as losses: 0 for the best one that the task has, 1 for the worst.

    Args:
        task: PastTask. The task that sets the scale.
        scores: array or tensor. The scores.
    """
    best, spread = float(np.max(task.scores)), float(np.ptp(task.scores)) or 1.0
    return (best - scores) / spread


def with_fewer_points(past: Sequence[PastTask], seed: int = 0) -> list[PastTask]:
    """Returns tasks with at most 500 observations: half of them the best, half drawn at random.

    Args:
        past: sequence of PastTask. The tasks.
        seed: int. Of the draw. Defaults to 0.
    """
    generator = np.random.default_rng(seed)
    half = MOST_POINTS // 2
    tasks = []
    for task in past:
        points, scores = np.asarray(task.points), np.asarray(task.scores)
        if len(scores) > MOST_POINTS:
            order = np.argsort(-scores)
            drawn = generator.choice(order[half:], MOST_POINTS - half, replace=False)
            rows = np.concatenate([order[:half], drawn])
            points, scores = points[rows], scores[rows]
        tasks.append(PastTask(points, scores))
    return tasks
