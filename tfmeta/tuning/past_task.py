"""Observations of one past task."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class PastTask(NamedTuple):
    """Scores of configurations that were tried in one task.

    Attributes:
        points: array `[N, d]`. The configurations, from `SearchSpace.encode`.
        scores: array `[N]`. Their scores; higher is better.

    Example:

    >>> task = PastTask(np.array([[0.0], [1.0]]), np.array([0.8, 0.9]))
    >>> task.check()
    """

    points: np.ndarray
    scores: np.ndarray

    def check(self) -> None:
        """Raises a ValueError if points and scores do not fit, or are not finite."""
        points, scores = np.asarray(self.points), np.asarray(self.scores)
        if points.ndim != 2 or scores.shape != points.shape[:1] or not len(scores):
            raise ValueError(
                "A past task has points [N, d] and scores [N], with N ≥ 1; got the shapes "
                f"{points.shape} and {scores.shape}."
            )
        if not (np.isfinite(points).all() and np.isfinite(scores).all()):
            raise ValueError("A past task's points and scores must be finite: leave out failures.")
