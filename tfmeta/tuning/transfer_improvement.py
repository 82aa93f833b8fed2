"""How a candidate does in the past tasks that resemble the new one."""

from __future__ import annotations

import numpy as np

from tfmeta.checks import check_positive


def transfer_improvement(
    losses: np.ndarray, tried: np.ndarray, scores: np.ndarray, *, bandwidth: float = 0.5
) -> np.ndarray:
    """Returns how much each candidate would improve in past tasks over what was tried, on average.

    A past task counts by how well it ranks what was tried in the new task: with the share d of
    pairs that it ranks the other way, its weight is `1 − (d / bandwidth)²`, or 0. As long as
    nothing was tried, all count, and the best candidate is the first of the greedy portfolio. Added
    to the new task's expected improvement, it is the transfer acquisition function.

    Args:
        losses: array `[tasks, candidates]`. Of the candidates in the past tasks, on one scale.
        tried: array `[tasks, N]`. Of what was tried in the new task, in the past tasks. N can be 0.
        scores: array `[N]`. What it scored in the new task; higher is better.
        bandwidth: float > 0. The share of pairs from which on a task does not count. Defaults to
            0.5, as many as in a random order.

    Returns:
        float64 `[candidates]`. The weighted sum of improvements, divided by the number of tasks.

    Raises:
        ValueError: If the shapes or the bandwidth do not fit.

    Reference:
        Wistuba, Schilling & Schmidt-Thieme (2018), "Scalable Gaussian process-based transfer
        surrogates for hyperparameter optimization", Machine Learning 107: equations of TAF-R.

    Example: the second past task ranks the trials as the new task does, the first the other way.

    >>> losses, tried = [[0.0, 1.0], [1.0, 0.0]], [[0.5, 0.9], [0.9, 0.5]]
    >>> transfer_improvement(losses, tried, [0.1, 0.2])
    array([0.  , 0.25])
    """
    losses, tried, scores = (np.asarray(values, float) for values in (losses, tried, scores))
    if losses.ndim != 2 or tried.shape != (len(losses), len(scores)):
        raise ValueError(
            "losses must be [tasks, candidates], tried [tasks, N] and scores [N]; got the shapes "
            f"{losses.shape}, {tried.shape} and {scores.shape}."
        )
    check_positive("bandwidth", bandwidth)
    if not len(scores):
        return -losses.mean(axis=0)
    i, j = np.triu_indices(len(scores), 1)
    # A lower loss should go with a higher score.
    contrary = (tried[:, i] - tried[:, j]) * (scores[i] - scores[j]) > 0
    share = contrary.mean(axis=1) if len(i) else np.zeros(len(losses))
    weights = np.maximum(1 - (share / bandwidth) ** 2, 0)
    gains = np.maximum(tried.min(axis=1, keepdims=True) - losses, 0)
    return weights @ gains / len(losses)
