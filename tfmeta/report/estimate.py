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


def ci95(self) -> float:
        """Half-width of the 95 % confidence interval of the mean."""
        return self.estimate.ci95

    @property
    def ways_and_shots(self) -> str:
        """The episodes in words, as in "5-way 1-shot"; empty if they are unknown."""
        if self.episodes is None:
            return ""
        n_way = f"{self.episodes['n_way']}-way " if "n_way" in self.episodes else ""
        return f"{n_way}{self.episodes['n_shot']}-shot"

    def __str__(self) -> str:
        return f"{self.metric} {self.mean:.4f} ± {self.ci95:.4f} ({self.n_episodes} episodes)"

    def to_dict(self) -> dict[str, Any]:
        """Returns the estimates and the setting as plain values, for JSON."""
        content: dict[str, Any] = {
            "metric": self.metric,
            **self.estimate.to_dict(),
            "n_episodes": self.n_episodes,
        }
        if self.steps:
            content["by_inner_step"] = [
                {"inner_steps": step, **estimate.to_dict()}
                for step, estimate in enumerate(self.steps)
            ]
        if self.episodes is not None:
            content |= {"episodes": dict(self.episodes), "batch_norm": self.batch_norm}
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Evaluation:
        """Reads what `to_dict` returned; other keys are ignored."""
        return cls(
            content["metric"],
            Estimate.from_dict(content),
            content["n_episodes"],
            tuple(Estimate.from_dict(step) for step in content.get("by_inner_step", [])),
            episodes=content.get("episodes"),
            batch_norm=content.get("batch_norm"),
        )


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
