"""Past tasks that resemble a new one."""

from __future__ import annotations

import numpy as np

from tfmeta.checks import check_integer


def nearest_tasks(meta_features: np.ndarray, of_new_task: np.ndarray, k: int) -> list[int]:
    """Returns the past tasks whose meta-features are nearest to those of a new task.

    Their best configurations, in this order, are the first ones to try. Each meta-feature is
    scaled to `[0, 1]` over the past tasks; the distance is the sum of absolute differences. A
    meta-feature is a number that is known before training, such as the number of examples or
    its logarithm.

    Args:
        meta_features: array `[tasks, features]`. Of the past tasks.
        of_new_task: array `[features]`. Of the new task.
        k: int ≥ 1. How many tasks to return.

    Returns:
        list of int, `[k]`. The nearest first.

    Raises:
        ValueError: If the shapes do not fit, a number is not finite, or there are fewer tasks.

    Reference:
        Feurer, Springenberg & Hutter (2015), "Initializing Bayesian hyperparameter optimization
        via meta-learning", AAAI: distance with p = 1.

    Example:

    >>> nearest_tasks([[1.0, 0.2], [2.0, 0.2], [3.0, 0.8]], [2.2, 0.3], k=2)
    [1, 0]
    """
    past, new = np.asarray(meta_features, float), np.asarray(of_new_task, float)
    if past.ndim != 2 or new.shape != past.shape[1:]:
        raise ValueError(
            "meta_features must be [tasks, features], and those of the new task [features]; got "
            f"the shapes {past.shape} and {new.shape}."
        )
    if not (np.isfinite(past).all() and np.isfinite(new).all()):
        raise ValueError("All meta-features must be finite numbers.")
    check_integer("k", k, 1)
    if k > len(past):
        raise ValueError(f"k must be at most {len(past)}, all past tasks; got {k}.")
    spread = np.ptp(past, axis=0)
    spread[spread == 0] = 1
    distances = (np.abs(past - new) / spread).sum(axis=1)
    return [int(task) for task in distances.argsort(kind="stable")[:k]]
