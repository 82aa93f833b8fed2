"""The file from which meta-training of a policy goes on."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmeta.files import replacing

NAME = "checkpoint.npz"


def save(
    path: Path,
    variables: Sequence[keras.Variable],
    config: dict[str, Any],
    history: list[dict[str, float]],
) -> None:
    """Saves variables with how far the training is, replacing the file as a whole.

    Args:
        path: Path. The file.
        variables: sequence of keras.Variable. All that training changes.
        config: dict. The learner's options.
        history: list of dict. A row for each iteration.
    """
    values = {str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    about = json.dumps({"config": config, "history": history})
    with replacing(path) as temporary:
        np.savez(temporary, about=np.array(about), **values)


def load(
    path: Path,
    variables: Sequence[keras.Variable],
    config: dict[str, Any],
    history: list[dict[str, float]],
) -> list[dict[str, float]]:
    """Sets variables to what a file holds, if it is further than the learner; returns the history.

    Args:
        path: Path. The file.
        variables: sequence of keras.Variable. They are changed only if all of them fit.
        config: dict. The learner's options, which must be those of the file.
        history: list of dict. The learner's history, which must be that of the file as far as both
            go.

    Raises:
        ValueError: If the file is broken, or of another learner.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            values = [file[str(i)] for i in range(len(file.files) - 1)]
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} was truncated or altered: {error}. Delete it to train anew."
        ) from error
    saved = about["config"]
    other = sorted(k for k in {*saved, *config} if saved.get(k) != config.get(k))
    if other:
        differences = ", ".join(f"{k} {saved.get(k)!r}, not {config.get(k)!r}" for k in other)
        raise ValueError(f"{path} is of another learner: {differences}. Choose another folder.")
    if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
        raise ValueError(f"{path} is of another policy or inner rule. Choose another folder.")
    both = min(len(history), len(about["history"]))
    if history[:both] != about["history"][:both]:
        raise ValueError(f"{path} is of another run. Choose another folder.")
    if len(history) >= len(about["history"]):
        return history
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return about["history"]
