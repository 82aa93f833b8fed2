"""The facts that tell one run from another."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras

from tfmeta.learners import MetaLearner

# The keys of a configuration that hold names of layers.
NAMES = {"name", "inbound_nodes", "input_layers", "output_layers"}


@dataclasses.dataclass(frozen=True)
class Run:
    """The facts that tell a run from another, and how far it is.

    Attributes:
        content: dict. What is trained, as plain values.
        steps_per_epoch: int. The steps of an epoch.
        is_regression: bool. Whether tasks are regression tasks.
        data: dict or None. What tells the data from others; None if nothing does. Defaults to
            None.
    """

    content: dict[str, Any]
    steps_per_epoch: int
    is_regression: bool
    data: dict[str, Any] | None = None

    def difference(self, content: dict[str, Any]) -> str | None:
        """Says in what a run that was saved is another one.

        Args:
            content: dict. The `content` of the run that was saved.

        Returns:
            None if it is this one.
        """
        return difference(content, self.content)

    def check_data(self, folder: Path, before: dict[str, Any] | None) -> None:
        """Raises a ValueError if the data are others than those that the run began with.

        Args:
            folder: Path. The folder of the run.
            before: dict or None. The `data` of the run that was saved.
        """


def run_of(learner: MetaLearner, steps_per_epoch: int, facts: dict[str, Any]) -> Run:
    """Returns what tells the run of a learner from others.

    Args:
        learner: MetaLearner. The learner, compiled.
        steps_per_epoch: int. The steps of an epoch.
        facts: dict. More that tells it, as plain values.

    Raises:
        ValueError: If the learner cannot be saved, or the facts are no plain values.
    """
    try:
        config = keras.saving.serialize_keras_object(learner)
    except NotImplementedError as error:
        raise ValueError(
            f"This {type(learner).__name__} cannot be saved, so its run could not resume: {error}"
        ) from error
    try:
        plain = json.loads(json.dumps(facts))
    except TypeError as error:
        raise ValueError(f"facts must be plain values, as JSON has them: {error}.") from error
    content = {
        "learner": _without_names(json.loads(json.dumps(config, default=str))),
        "optimizer": type(learner.optimizer).__name__,
        "steps_per_epoch": steps_per_epoch,
        "facts": plain,
    }
    return Run(content, steps_per_epoch, learner.output_kind == "values")


def _without_names(value: Any) -> Any:
    """Returns plain values without the names of layers, which Keras numbers through a process."""
    if isinstance(value, dict):
        return {k: _without_names(v) for k, v in value.items() if k not in NAMES}
    return [_without_names(v) for v in value] if isinstance(value, list) else value


def difference(before: Any, now: Any, name: str = "") -> str | None:
    """Says where two nests of plain values differ first; None if they do not.

    Args:
        before: plain values. The earlier ones.
        now: plain values. The later ones.
        name: str. What the values are called. Defaults to `""`.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            found = difference(before.get(key), now.get(key), f"{name}.{key}" if name else key)
            if found:
                return found
        return None
    return None if before == now else f"{name} was {before!r:.80}, is {now!r:.80}"
