"""A portfolio of configurations that serve past tasks well together."""

from __future__ import annotations

import numpy as np

from tfmeta.checks import check_integer


def greedy_portfolio(regrets: np.ndarray, size: int) -> list[int]:
    """Chooses configurations one by one, each to lower the mean regret of the best one so far most.

    Args:
        regrets: array `[tasks, candidates]`. How much each configuration falls short of the best
            one, in each past task; lower is better. Tasks should have the same scale.
        size: int ≥ 1. How many to choose. If none lowers the regret any more, fewer are returned
            that differ, followed by those with the lowest mean regret.

    Returns:
        list of int, `[size]`. The candidates, in the order in which to try them.

    Raises:
        ValueError: If `regrets` has another shape or is not finite, or `size` is not from 1 to the
            number of candidates.

    Reference:
        Wang et al. (2022), https://arxiv.org/abs/2202.09927, section 3.

    Example:

    >>> greedy_portfolio(np.array([[0.2, 0.0, 0.9], [0.2, 0.9, 0.0]]), 3)
    [0, 1, 2]
    """
    regrets = np.asarray(regrets, float)
    if regrets.ndim != 2 or not regrets.size or not np.isfinite(regrets).all():
        raise ValueError(
            f"regrets must be finite numbers [tasks, candidates]; got the shape {regrets.shape}."
        )
    check_integer("size", size, 1)
    if size > regrets.shape[1]:
        raise ValueError(f"size must be at most {regrets.shape[1]}, all candidates; got {size}.")
    means = regrets.mean(axis=0)
    best = np.full(len(regrets), np.inf)
    chosen: list[int] = []
    for _ in range(size):
        after = np.minimum(best[:, None], regrets).mean(axis=0)
        after[chosen] = np.inf
        # Of several that are as good, the one that is best on average.
        best_after = np.flatnonzero(after == after.min())
        chosen.append(int(best_after[means[best_after].argmin()]))
        best = np.minimum(best, regrets[:, chosen[-1]])
    return chosen
