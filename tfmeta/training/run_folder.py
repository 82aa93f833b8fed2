"""The folder of a run of a recipe: checks and reads its files."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from tfmeta.about import About
from tfmeta.callbacks import checkpoint
from tfmeta.callbacks.checkpoint import BrokenFileError
from tfmeta.callbacks.run_files import BEST, HISTORY, LEARNERS, LOCK
from tfmeta.data import ImageFormat
from tfmeta.learners import MetaLearner
from tfmeta.recipes import Recipe
from tfmeta.recipes.yaml_files import read_yaml

RECIPE = "recipe.yaml"
DETAILS = "run.json"
EVALUATION = "evaluation.json"
LEARNING_CURVE = "learning_curve.png"
ADAPTATION_CURVE = "adaptation_curve.png"
FITS = "fits.png"
EPISODES = "episodes.png"

PICTURES = (LEARNING_CURVE, ADAPTATION_CURVE, FITS, EPISODES)
FILES = (RECIPE, DETAILS, HISTORY, EVALUATION, *LEARNERS, *PICTURES)


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
    if _recipe_of_learners(folder, recipe):
        return
    is_folder = folder.is_dir()
    if folder.exists() and not (is_folder and {p.name for p in folder.iterdir()} <= {LOCK}):
        raise ValueError(
            f"{folder} is neither an empty folder nor a run folder. Choose another --output."
        )


def is_recipe(content: Any, recipe: Recipe) -> bool:
    """Tells whether plain values are those of a recipe.

    Args:
        content: Any. What a recipe's `to_dict` returned once, after a way through JSON or YAML.
        recipe: Recipe. The recipe.
    """
    try:
        return Recipe.from_dict(content).to_dict() == recipe.to_dict()
    except ValueError:
        return False


def _recipe_of_learners(folder: Path, recipe: Recipe) -> bool:
    """Tells whether a file with a learner is of this recipe, in a folder that lost its recipe."""
    for name in LEARNERS:
        if (folder / name).is_file():
            with contextlib.suppress(BrokenFileError):
                checkpoint.check_whole(folder / name)
                progress = checkpoint.read_progress(folder / name)
                if progress is not None and is_recipe(progress.recipe, recipe):
                    return True
    return False


# === Reading ===


def load_learner(folder: str | os.PathLike[str]) -> MetaLearner:
    """Loads the best learner of a run folder.

    Args:
        folder: str or path. The run folder.

    Raises:
        ValueError: If there is none, or it is broken.
    """
    path = Path(folder) / BEST
    if not path.is_file():
        raise ValueError(
            f"{folder} is no run folder: it has no {BEST}. Make one with "
            f"`tfmeta train RECIPE --output {folder}`."
        )
    try:
        return checkpoint.load_best(path)
    except BrokenFileError as error:
        raise ValueError(
            f"{error} Repeat `tfmeta train` into this folder to get the best learner that is left."
        ) from error


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
