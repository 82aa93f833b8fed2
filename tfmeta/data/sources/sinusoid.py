"""Sinusoids, the regression tasks of MAML."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfmeta.data.pipeline import EpisodeRandom
from tfmeta.data.task_distribution import TaskDistribution


def sinusoid() -> TaskDistribution:
    """y = A·sin(x − φ) with A ~ U(0.1, 5), φ ~ U(0, π), x ~ U(-5, 5).

    Reference:
        Finn et al. (2017), https://arxiv.org/abs/1703.03400, section 5.1.
    """
    return TaskDistribution(_draw_task, -5.0, 5.0, 0.0, {"name": "sinusoid"})


def _draw_task(random: EpisodeRandom) -> Callable[[tf.Tensor], tf.Tensor]:
    amplitude = random.uniform([], 0.1, 5.0)
    phase = random.uniform([], 0.0, 3.141592653589793)
    return lambda x: amplitude * tf.sin(x - phase)
