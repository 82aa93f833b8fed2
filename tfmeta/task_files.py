"""Writes and reads the two files of a task folder.

    model.keras    the adapted model, as Keras saves it
    task.json      facts about the task, and the model's digest

To replace a task, `task.json` is written first, with the facts of both tasks, and then the model:
the model's digest tells which facts are its own. So a reader has the old task or the new one, even
if the writer is killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tfmeta.files import replacing, sha256_of, sweep, write_json
from tfmeta.versions import locked

MODEL, TASK = "model.keras", "task.json"

# Keys of `task.json` that are no facts about the task: the digest of its model, and the facts of
# the task before, of which the model may still be there.
DIGEST, BEFORE = "model_sha256", "before"

# How often to look again if a task is replaced while it is read.
ATTEMPTS = 5

Facts = dict[str, Any]


def write(folder: Path, model: keras.Model, facts: Facts, check: Callable[[Any], Any]) -> None:
    """Writes a task folder; replaces an earlier task in it, and removes what killed writers left.

    Args:
        folder: Path. The folder; made if it does not exist.
        model: keras.Model. The adapted model.
        facts: dict. Facts about the task, which `json` can write.
        check: function. Raises a ValueError or TypeError if the content of a `task.json` is wrong.
    """
    with locked(folder, keep_file=False):
        sweep(folder, (MODEL, TASK))
        before = _facts_of_model(folder, check)
        with replacing(folder / MODEL) as temporary:
            model.save(temporary)
            facts = {**facts, DIGEST: sha256_of(temporary)}
            write_json(folder / TASK, facts if before is None else {**facts, BEFORE: before})
        if before is not None:
            write_json(folder / TASK, facts)


def read(folder: Path, check: Callable[[Any], Facts]) -> tuple[keras.Model, Facts]:
    """Reads a task folder that has a `task.json`.

    Args:
        folder: Path. The folder.
        check: function. Returns the facts that are in the content of a `task.json`. Raises a
            ValueError or TypeError if it is wrong.

    Returns:
        The model, and what `check` returned.

    Raises:
        ValueError: If a file is broken or missing, or the two are of different tasks.
    """
    for _ in range(ATTEMPTS):
        try:
            content = json.loads((folder / TASK).read_text(encoding="utf-8"))
            check(content)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{folder / TASK} is broken, or no task of tfmeta: {error}") from error
        if not (folder / MODEL).is_file():
            raise ValueError(f"{folder} lacks its {MODEL}: adapt again.")
        digest = sha256_of(folder / MODEL)
        facts = _facts_of(content, digest)
        if facts is not None:
            model = keras.models.load_model(folder / MODEL)
            if sha256_of(folder / MODEL) == digest:
                return model, check(facts)
    raise ValueError(
        f"{folder / MODEL} was truncated or altered, or is of another task: its digest is not that "
        f"in {TASK}. Adapt again."
    )


def _facts_of(content: Facts, digest: str) -> Facts | None:
    """Returns what a `task.json` tells of the model with this digest; None if it tells nothing."""
    if content.get(DIGEST, digest) == digest:  # tfmeta 0.1 wrote no digest.
        return content
    before = content.get(BEFORE)
    return None if before is None else _facts_of(before, digest)


def _facts_of_model(folder: Path, check: Callable[[Any], Any]) -> Facts | None:
    """Returns what the `task.json` of a folder tells of the model there; None if it is no task."""
    try:
        content = json.loads((folder / TASK).read_text(encoding="utf-8"))
        check(content)
        facts = _facts_of(content, digest := sha256_of(folder / MODEL))
    except (OSError, ValueError, TypeError):
        return None  # It was no task, or a broken one, and is replaced.
    if facts is None:
        return None
    return {**{key: value for key, value in facts.items() if key != BEFORE}, DIGEST: digest}
