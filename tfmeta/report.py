"""Measured results, and the file `evaluation.json` that keeps them. TensorFlow is not imported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfmeta.files import write_json


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


@dataclasses.dataclass(frozen=True)
class Report:
    """A learner's evaluations by a recipe, and how they were made.

    All attributes but the first may be None, if they are unknown or do not apply.

    Attributes:
        evaluations: tuple of Evaluation. The recipe's own test setting, then its further settings.
        protocol: str. The test protocol in words.
        data: dict. The name and options of the data.
        split: str. "train", "validation" or "test".
        seed: int. Seed of the episodes.
        weights_sha256: str. Digest of the learner's weights.
        inner_steps: int. The learner's own number of inner steps, which `mean` is measured after.
        training_seconds: float. Time of meta-training with validation.
        n_parameters: int. Number of parameters.
        machine: str. The machine in words.
        versions: dict. Versions of Python and of libraries.
        tested_as: str. Name of the recipe, if it is not the learner's own.
        trained_on: dict. The learner's own data, if the recipe is not its own.
    """

    evaluations: tuple[Evaluation, ...]
    protocol: str | None = None
    data: Mapping[str, Any] | None = None
    split: str | None = None
    seed: int | None = None
    weights_sha256: str | None = None
    inner_steps: int | None = None
    training_seconds: float | None = None
    n_parameters: int | None = None
    machine: str | None = None
    versions: Mapping[str, str] | None = None
    tested_as: str | None = None
    trained_on: Mapping[str, Any] | None = None

    @property
    def own(self) -> Evaluation:
        """The evaluation in the recipe's own test setting."""
        return self.evaluations[0]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        facts = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("evaluations", "tested_as", "trained_on")
        }
        also = [evaluation.to_dict() for evaluation in self.evaluations[1:]]
        content = {
            **self.own.to_dict(),
            **{name: value for name, value in facts.items() if value is not None},
            **({"also": also} if also else {}),
        }
        if self.tested_as is not None:
            content |= {"as": self.tested_as, "trained_on": self.trained_on}
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Report:
        """Reads what `to_dict` returned; other keys are ignored."""
        settings = [content, *content.get("also", [])]
        names = {field.name for field in dataclasses.fields(cls)} - {"evaluations"}
        return cls(
            tuple(Evaluation.from_dict(setting) for setting in settings),
            tested_as=content.get("as"),
            **{name: value for name, value in content.items() if name in names},
        )

    def write(self, file: Path) -> None:
        """Writes the report as JSON."""
        write_json(file, self.to_dict())

    @classmethod
    def read(cls, file: Path) -> Report:
        """Reads a report that was written as JSON.

        Raises:
            ValueError: If the file is not such a report.
        """
        try:
            return cls.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} is no evaluation that tfmeta wrote: {error!r}.") from error
