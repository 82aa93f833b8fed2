"""Straight lines with noise."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfmeta.data.pipeline import EpisodeRandom
from tfmeta.data.task_distribution import TaskDistribution


def linear() -> TaskDistribution:
    """y = a·x + b with a ~ U(-5, 5), b ~ U(-10, 10), x ~ U(-5, 5).

    The support targets carry Gaussian noise of standard deviation 0.3; the query targets do not.
    """
    return TaskDistribution(_draw_task, -5.0, 5.0, 0.3, {"name": "linear"})


def _draw_task(random: EpisodeRandom) -> Callable[[tf.Tensor], tf.Tensor]:
    slope = random.uniform([], -5.0, 5.0)
    intercept = random.uniform([], -10.0, 10.0)
    return lambda x: slope * x + intercept
