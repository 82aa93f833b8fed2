"""All evaluations of a learner by a recipe, and the file `evaluation.json` that keeps them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmeta.files import write_json
from tfmeta.report.evaluation import Evaluation


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
