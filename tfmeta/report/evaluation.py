"""A learner's measured performance in one setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmeta.report.estimate import Estimate
from tfmeta.report.texts import ways_and_shots


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A learner's measured performance in one setting.

    Attributes:
        metric: str. "accuracy" (from 0 to 1) or "mse".
        estimate: Estimate. The mean over episodes.
        n_episodes: int. Number of episodes.
        steps: tuple of Estimate. The mean after 0, 1, … inner steps; empty if that was not
            measured.
        values: array `[n_episodes]`. The metric of each episode. None if it was read from a file,
            which holds the estimates alone.
        by_inner_step: array `[inner_steps + 1, n_episodes]`. The metric of each episode after
            0, 1, … inner steps. None if that was not measured, or was read from a file.
        episodes: dict. Options of `episodes(...)`. None if unknown.
        batch_norm: str. How batch norm normalised. None if there is none, or it is unknown.
        changes: dict. The options that differ from the recipe's own test setting; empty for that
            setting itself. Not written to files.
    """

    metric: str
    estimate: Estimate
    n_episodes: int
    steps: tuple[Estimate, ...] = ()
    values: np.ndarray | None = None
    by_inner_step: np.ndarray | None = None
    episodes: Mapping[str, Any] | None = None
    batch_norm: str | None = None
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, metric: str, values: np.ndarray, by_inner_step: np.ndarray | None = None
    ) -> Evaluation:
        """Makes an evaluation of each episode's metric.

        Args:
            metric: str. "accuracy" or "mse".
            values: array `[n_episodes]`. The metric of each episode.
            by_inner_step: array `[inner_steps + 1, n_episodes]`. The metric after each inner step.
                Defaults to None.
        """
        steps = () if by_inner_step is None else tuple(Estimate.of(row) for row in by_inner_step)
        return cls(metric, Estimate.of(values), len(values), steps, values, by_inner_step)

    @property
    def mean(self) -> float:
        return self.estimate.mean

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % confidence interval of the mean."""
        return self.estimate.ci95

    @property
    def ways_and_shots(self) -> str:
        """The episodes in words, as in "5-way 1-shot"; empty if they are unknown."""
        return "" if self.episodes is None else ways_and_shots(self.episodes)

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
