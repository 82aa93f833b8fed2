"""Sinusoids with noise, and their exact posterior predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

import tfmeta

NOISE = 0.3
AMPLITUDES, PHASES = (0.1, 5.0), (0.0, np.pi)
# Points of the grid over amplitude and phase.
GRID = (200, 200)


def noisy_waves(n_shot: int, n_query: int, n_tasks: int, seed: int) -> tf.data.Dataset:
    """Episodes of tfmeta's sinusoids; all targets, the queries' too, carry Gaussian noise."""
    source = tfmeta.data.load("sinusoid")
    episodes = source.episodes(n_shot=n_shot, n_query=n_query, meta_batch_size=n_tasks, seed=seed)

    def with_noise(number: tf.Tensor, episode: Any) -> Any:
        inputs, y = episode[0], episode[1]
        n = tf.random.stateless_normal(
            [n_tasks, n_shot + n_query, 1], tf.stack([tf.cast(seed, number.dtype), number])
        )
        noisy = {**inputs, "support_y": inputs["support_y"] + NOISE * n[:, :n_shot]}
        return noisy, y + NOISE * n[:, n_shot:]

    return episodes.enumerate().map(with_noise)


def exact_prediction(
    support_x: np.ndarray, support_y: np.ndarray, query_x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The posterior mean and variance of noisy queries, and 95 % intervals, for one task.

    The posterior of amplitude and phase is summed on a grid, with the distribution of the tasks as
    the prior.
    """
    amplitude, phase = (
        np.linspace(*limits, 2 * n + 1)[1::2]
        for limits, n in zip((AMPLITUDES, PHASES), GRID, strict=True)
    )
    a, p = (v.ravel() for v in np.meshgrid(amplitude, phase, indexing="ij"))

    def waves(x: np.ndarray) -> np.ndarray:
        return a[:, None] * np.sin(x[None, :, 0] - p[:, None])

    log_weight = -(((waves(support_x) - support_y[None, :, 0]) / NOISE) ** 2).sum(axis=1) / 2
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    values = waves(query_x)
    mean = weight @ values
    return mean, weight @ (values - mean) ** 2 + NOISE**2, np.sqrt(weight @ (values - mean) ** 2)
