"""The folder of a run: checks, locks and reads its files."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import filelock
import keras

from tfmeta.about import About
from tfmeta.data import ImageFormat
from tfmeta.learners import MetaLearner
from tfmeta.recipes import Recipe
from tfmeta.recipes.yaml_files import read_yaml

RECIPE = "recipe.yaml"
DETAILS = "run.json"
BEST = "best.keras"
CHECKPOINT = "checkpoint.keras"
HISTORY = "history.csv"
EVALUATION = "evaluation.json"
ADAPTATION_CURVE = "adaptation_curve.png"
LOCK = ".lock"


# === Writing ===


def check_free(folder: Path, recipe: Recipe) -> None:
    """Checks that a folder is empty, or holds a run of this recipe.

    Args:
        folder: Path. The run folder; it need not exist.
        recipe: Recipe. The recipe to run.

    Raises:
        ValueError: If there is anything else.
    """
    if (folder / RECIPE).exists():
        if Recipe.load(folder / RECIPE).to_dict() != recipe.to_dict():
            raise ValueError(
                f"{folder} holds the run of another recipe. Choose another --output, or remove it."
            )
        return
    is_folder = folder.is_dir()
    if folder.exists() and not (is_folder and {p.name for p in folder.iterdir()} <= {LOCK}):
        raise ValueError(
            f"{folder} is neither an empty folder nor a run folder. Choose another --output."
        )


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes from training into a folder.

    The lock is released when the process ends, however it ends.

    Args:
        folder: Path. The run folder, which is made if need be.

    Raises:
        ValueError: If another process trains into the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"Another process is training into {folder}. Wait for it, or choose another --output."
        ) from None
    try:
        yield
    finally:
        lock.release()


# === Reading ===


def load_learner(folder: str | os.PathLike[str]) -> MetaLearner:
    """Loads the best learner of a run folder.

    Args:
        folder: str or path. The run folder.

    Raises:
        ValueError: If there is none.
    """
    path = Path(folder) / BEST
    if not path.is_file():
        raise ValueError(
            f"{folder} is no run folder: it has no {BEST}. Make one with "
            f"`tfmeta train RECIPE --output {folder}`."
        )
    return keras.models.load_model(path)


def about(folder: str | os.PathLike[str]) -> About:
    """Returns the facts in a run folder about its learner.

    Args:
        folder: str or path. The run folder.
    """
    details = json.loads((Path(folder) / DETAILS).read_text(encoding="utf-8"))
    image_format = details["image_format"]
    return About(
        details["example_shape"],
        None if image_format is None else ImageFormat(**image_format),
        # As it stands: what it names, such as a folder, is not needed now and may have moved.
        read_yaml(Path(folder) / RECIPE),
    )


def read_history(folder: Path) -> list[dict[str, float]]:
    """Returns the rows of a run's `history.csv`, one per epoch.

    Args:
        folder: Path. The run folder.
    """
    with (folder / HISTORY).open(encoding="utf-8", newline="") as file:
        return [
            {k: int(v) if k == "epoch" else float(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]
