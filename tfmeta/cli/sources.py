"""Finds and reads runs and presets, which the commands call SOURCE.

All other modules of the command line look up runs and presets here.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfmeta.cli.startup import start_tensorflow

if TYPE_CHECKING:
    from tfmeta.about import About
    from tfmeta.learners import MetaLearner
    from tfmeta.networks import BatchNorm
    from tfmeta.recipes import Recipe

# Files of a run folder, repeated because importing `tfmeta.training` would import TensorFlow.
RUN_LEARNER, RUN_RECIPE, RUN_DETAILS = "best.keras", "recipe.yaml", "run.json"
# A task's folder has this file; see `tfmeta.tasks`.
TASK = "task.json"
# A run folder has this file; a preset has it if its run had it.
EVALUATION = "evaluation.json"


class Source(NamedTuple):
    """The folder of a run or of a preset."""

    folder: Path
    is_run: bool

    @property
    def learner_file(self) -> Path:
        """The learner's file."""
        from tfmeta.preset_files import LEARNER

        return self.folder / (RUN_LEARNER if self.is_run else LEARNER)


def list_presets() -> list[str]:
    """Returns the names of the presets that come with tfmeta."""
    from tfmeta import zoo

    return zoo.list_presets()


def locate(source: str) -> Source:
    """Finds a run or a preset; downloads a preset if it is an address.

    Args:
        source: str. A run folder, or a preset: its name, folder or address.

    Raises:
        ValueError: If there is none.
    """
    from tfmeta import preset_files, zoo

    folder = Path(source)
    if source and (folder / RUN_LEARNER).is_file():
        return Source(folder, is_run=True)
    if "://" in source:
        # Some kinds of downloads need TensorFlow.
        start_tensorflow()
        return Source(zoo.find(source), is_run=False)
    is_preset = (folder.expanduser() / preset_files.PRESET).is_file() or source in list_presets()
    if is_preset or not source:
        return Source(zoo.find(source), is_run=False)
    if folder.is_dir():
        raise ValueError(
            f"{source} is no run folder or preset: it has neither {RUN_LEARNER}, which `tfmeta "
            f"train` writes after the first epoch, nor {preset_files.PRESET}."
        )
    is_path = len(folder.parts) > 1
    nearest = [] if is_path else difflib.get_close_matches(source, list_presets(), n=1)
    way_out = (
        f"did you mean {nearest[0]!r}?"
        if nearest
        else "`tfmeta list` shows the presets, and `tfmeta train` makes a run folder."
    )
    raise ValueError(f"There is no run folder or preset {source!r}; {way_out}")


def servable_folder(source: str) -> Path:
    """Finds the servable of a preset.

    Args:
        source: str. The preset's name or folder.

    Raises:
        ValueError: If there is no such preset, or it has no servable.
    """
    from tfmeta.preset_files import SERVABLE, check

    found = locate(source)
    folder = found.folder / SERVABLE
    if not found.is_run:
        check(found.folder, part=SERVABLE)
    if found.is_run or not folder.is_dir():
        raise ValueError(
            f"{source} has no servable: make one with `tfmeta export {source} --output FOLDER`."
        )
    return folder


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
        file: Path. The file.

    Raises:
        ValueError: If it is broken. The message names it.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is broken: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is broken: it must hold an object.")
    return content


# === With TensorFlow ===


def open_learner(source: Source, batch_norm: BatchNorm | None = None) -> tuple[MetaLearner, About]:
    """Loads the learner of a run or a preset.

    Args:
        source: Source. What `locate` returned.
        batch_norm: str. The mode of batch norm. Defaults to None: the learner's own.

    Returns:
        The learner, and the facts about it.

    Raises:
        ValueError: If a file is broken, or the learner does not know the mode.
    """
    from tfmeta import preset_files, presets

    about: About
    if source.is_run:
        # Imported here, because a preset needs none of it: recipes take half a second to import.
        from tfmeta import training

        learner, about = training.load_learner(source.folder), training.about(source.folder)
    else:
        learner, about = presets.from_preset(source.folder), preset_files.read(source.folder)
    return (learner.with_batch_norm(batch_norm) if batch_norm else learner), about


def recipe_of(source: str) -> Recipe:
    """Reads the recipe of a file, a folder, a run or a preset.

    Args:
        source: str. A YAML file, a folder with a `recipe.yaml`, or a preset.

    Raises:
        ValueError: If there is none.
    """
    from tfmeta import preset_files
    from tfmeta.recipes import Recipe

    path = Path(source)
    if path.is_file() or (path / RUN_RECIPE).is_file():
        return Recipe.load(source)
    if path.suffix in (".yaml", ".yml"):
        raise ValueError(f"No such file: {source}.")
    content = preset_files.read_values(locate(source).folder)["recipe"]
    if content is None:
        raise ValueError(f"{source} does not say by which recipe to evaluate it: give --recipe.")
    try:
        return Recipe.from_dict(content)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def recipe_values(source: Source) -> dict[str, Any]:
    """Reads the recipe of a run or a preset as plain values.

    What it names, such as a folder of images, need not exist any more.

    Args:
        source: Source. What `locate` returned.

    Raises:
        ValueError: If there is none, or it has no name or training.
    """
    from tfmeta import preset_files
    from tfmeta.recipes.yaml_files import read_yaml

    content: Any
    if source.is_run:
        content = read_yaml(source.folder / RUN_RECIPE)
    else:
        content = preset_files.read_values(source.folder)["recipe"]
    if not (isinstance(content, dict) and isinstance(content.get("training"), dict)):
        raise ValueError(f"{source.folder} has no recipe that `tfmeta train` wrote.")
    return {"name": source.folder.name, **content}


def is_transductive(learner: MetaLearner) -> bool:
    """Tells whether a prediction depends on the other queries of the same call.

    Args:
        learner: MetaLearner. The learner.
    """
    from tfmeta.networks import normalises_together

    mode: Any = getattr(learner, "batch_norm", None)
    return normalises_together(mode, learner)
