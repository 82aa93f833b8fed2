"""A mean over episodes, and how certain it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over episodes.

    Attributes:
        mean: float. Not finite if some tasks diverged.
        ci95: float. Half-width of the 95 % confidence interval of the mean.
    """

    mean: float
    ci95: float

    @classmethod
    def of(cls, values: np.ndarray) -> Estimate:
        """Estimates the mean of the values `[n_episodes]`."""
        with np.errstate(invalid="ignore", over="ignore"):
            return cls(float(np.mean(values)), ci95(values))

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite([self.mean, self.ci95]).all())

    def to_dict(self) -> dict[str, float | None]:
        """Returns plain numbers, for JSON; None for both if one is not finite."""
        if not self.is_finite:
            return {"mean": None, "ci95": None}
        return {"mean": self.mean, "ci95": self.ci95}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Estimate:
        """Reads what `to_dict` returned."""
        if content["mean"] is None:
            return cls(float("nan"), float("nan"))
        return cls(content["mean"], content["ci95"])


def ci95(values: np.ndarray) -> float:
    """Returns the half-width of the 95 % confidence interval of a mean.

    It is 1.96 σ / √n, where σ is the sample standard deviation (divisor n − 1).

    Args:
        values: array `[n]`. One value per episode, n ≥ 2.

    Example:

    >>> round(ci95(np.array([0.0, 1.0, 1.0, 1.0])), 4)
    0.49
    """
    return float(1.96 * np.std(values, ddof=1) / np.sqrt(len(values)))
