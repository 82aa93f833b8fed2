"""Sinusoids and lines with noise, and their exact posterior predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

import tfmeta

NOISE = 0.3
LINE_NOISE = 0.5
AMPLITUDES, PHASES = (0.1, 5.0), (0.0, np.pi)
# Points of the grid over amplitude and phase.
GRID = (300, 600)


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


def exact_waves(
    support_x: np.ndarray, support_y: np.ndarray, query_x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The posterior mean and variance of noisy queries `[Q, 1]`, of one task.

    The posterior of amplitude and phase is summed on a grid, with the distribution of the tasks as
    the prior.
    """
    amplitude, phase = (
        np.linspace(*limits, 2 * n + 1)[1::2]
        for limits, n in zip((AMPLITUDES, PHASES), GRID, strict=True)
    )
    waves, y = np.sin(support_x[:, 0] - phase[:, None]), support_y[:, 0]
    # Of each amplitude and phase, the sum of squared errors.
    errors = np.square(amplitude)[:, None] * (waves**2).sum(axis=1)
    errors = errors - 2 * amplitude[:, None] * (waves @ y) + (y**2).sum()
    weight = np.exp(-(errors - errors.min()) / (2 * NOISE**2))
    weight /= weight.sum()
    values = np.sin(query_x[:, 0] - phase[:, None])
    mean = (amplitude @ weight) @ values
    square = (amplitude**2 @ weight) @ values**2
    return mean[:, None], (square - mean**2 + NOISE**2)[:, None]


def noisy_lines(n_shot: int, n_query: int, n_tasks: int, seed: int) -> tf.data.Dataset:
    """Episodes of y = a x + b with a, b ~ N(0, 1), x ~ U(-2, 2) and Gaussian noise."""

    def episode(number: tf.Tensor) -> Any:
        n = n_shot + n_query
        seeds = tf.stack([tf.cast(seed, number.dtype), number])
        x = tf.random.stateless_uniform([n_tasks, n, 1], tf.random.fold_in(seeds, 1), -2.0, 2.0)
        normal = tf.random.stateless_normal([n_tasks, n + 2, 1], seeds)
        y = normal[:, :1] * x + normal[:, 1:2] + LINE_NOISE * normal[:, 2:]
        inputs = {"support_x": x[:, :n_shot], "support_y": y[:, :n_shot], "query_x": x[:, n_shot:]}
        return inputs, y[:, n_shot:]

    return tf.data.Dataset.range(10**9).map(episode)


def exact_lines(
    support_x: np.ndarray, support_y: np.ndarray, query_x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The posterior mean and variance of noisy queries `[Q, 1]`, by Bayesian linear regression."""
    design, queries = (np.hstack([x, np.ones_like(x)]) for x in (support_x, query_x))
    covariance = np.linalg.inv(np.eye(2) + design.T @ design / LINE_NOISE**2)
    mean = covariance @ design.T @ support_y / LINE_NOISE**2
    spread = np.einsum("qi,ij,qj->q", queries, covariance, queries)
    return queries @ mean, spread[:, None] + LINE_NOISE**2
