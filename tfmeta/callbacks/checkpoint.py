"""The learners that a run keeps in files, with how far the run was.

Three files of a run folder have a learner with its optimizer, as Keras saves them:

    checkpoint.keras    the newest
    previous.keras      the checkpoint before
    best.keras          the best on validation

Each is a ZIP archive, to which a member `tfmeta.json` is added: the position of the run and its
history, so that nothing else has to fit to it. The archive has a check sum of each member. Files of
tfmeta 0.1 have no such member.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.files import replacing, sync
from tfmeta.learners import MetaLearner

MEMBER = "tfmeta.json"
# The bytes of the record at the end of a ZIP archive without a comment.
END_OF_ARCHIVE = 22


class BrokenFileError(ValueError):
    """A file is not what was written."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        recipe: dict. What is trained, as plain values: of a run of a recipe, the recipe.
        data: dict or None. What tells the data from others; None if unknown.
        epoch: int. The number of finished epochs. Defaults to 0.
        step: int. The number of finished steps of the epoch after these. Defaults to 0.
        history: list of dict. A row for each finished epoch. Defaults to none.
        best_epoch: int or None. The epoch, from 1, whose learner is the best. Defaults to None.
        stopped: bool. Whether a callback ended the training. Defaults to False.
        averaged: bool. Whether the learner's weights are the moving averages that its optimizer
            keeps, and the optimizer has the weights. Defaults to False.
        seconds: float. Seconds spent on the `step` steps. Defaults to 0.
        metrics: list. The values of the metrics' variables after them. Defaults to none.
        seeds: list. The states of the seed generators after them. Defaults to none.
    """

    recipe: dict[str, Any]
    data: dict[str, Any] | None = None
    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_epoch: int | None = None
    stopped: bool = False
    averaged: bool = False
    seconds: float = 0.0
    metrics: list[Any] = dataclasses.field(default_factory=list)
    seeds: list[Any] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return self.text()

    def text(self, epochs: int | None = None) -> str:
        """Says how far the run is.

        Args:
            epochs: int. The number of epochs that the run will have. Defaults to None: not said.
        """
        after = f"epoch {self.epoch}" if epochs is None else f"epoch {self.epoch} of {epochs}"
        return f"{after} and {self.step} steps of the next" if self.step else after

    @property
    def position(self) -> tuple[int, int]:
        """The finished epochs, and the steps after them."""
        return self.epoch, self.step


@contextlib.contextmanager
def saved(learner: MetaLearner, path: Path, progress: Progress) -> Iterator[None]:
    """Saves a learner, with how far its run is, replacing the file as a whole.

    Args:
        learner: MetaLearner. The learner, compiled.
        path: Path. The file.
        progress: Progress. How far the run is.

    Yields:
        None, when the new file is complete, but does not have its name yet.
    """
    with replacing(path) as temporary:
        learner.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(MEMBER, json.dumps(dataclasses.asdict(progress)))
        sync(temporary)
        yield


def save_best(learner: MetaLearner, path: Path, progress: Progress) -> None:
    """Saves a learner as it is to be used: with moving averages as weights, if there are such.

    Args:
        learner: MetaLearner. The learner, compiled.
        path: Path. The file.
        progress: Progress. How far the run is.
    """
    averaged = keras_internals.swap_averages(learner.optimizer)
    try:
        with saved(learner, path, dataclasses.replace(progress, averaged=averaged)):
            pass
    finally:
        if averaged:
            keras_internals.swap_averages(learner.optimizer)


def load(path: Path) -> MetaLearner:
    """Loads a learner as it was in training: with its weights, not their moving averages.

    Args:
        path: Path. The file.

    Raises:
        BrokenFileError: If the file is not what was written.
    """
    learner, progress = load_best(path), read_progress(path)
    if progress is not None and progress.averaged:
        keras_internals.swap_averages(learner.optimizer)
    return learner


def build(learner: MetaLearner, data: tf.data.Dataset) -> None:
    """Builds a learner and its optimizer, into which a checkpoint is then loaded.

    Args:
        learner: MetaLearner. The learner, compiled.
        data: tf.data.Dataset. Its episodes.
    """
    if not learner.built:
        for inputs, *_ in data.take(1):
            learner(inputs)
    if not learner.optimizer.built:
        learner.optimizer.build(learner.outer_variables)


def load_into(learner: MetaLearner, path: Path) -> None:
    """Loads the state of a learner and of its optimizer, as they were in training.

    Args:
        learner: MetaLearner. The learner, built and compiled, as it was when the run began.
        path: Path. The file, whole.
    """
    learner.load_weights(path)
    progress = read_progress(path)
    if progress is None:
        return
    if progress.averaged:
        keras_internals.swap_averages(learner.optimizer)
    # Files of earlier versions have no states of seeds after an epoch.
    for variable, state in zip(seeds_of(learner), progress.seeds, strict=False):
        keras_internals.set_seed_state(variable, *state)


def seeds_of(learner: MetaLearner) -> list[keras.Variable]:
    """Returns the states of the learner's seed generators, which Keras does not save."""
    return [v for v in learner.non_trainable_variables if keras_internals.is_seed_state(v)]


def load_best(path: Path) -> MetaLearner:
    """Loads a learner as it is in its file.

    Args:
        path: Path. The file.

    Raises:
        BrokenFileError: If the file is not what was written.
    """
    # Keras does not read all of the file, and so may not notice a wrong byte.
    check_whole(path)
    return keras.models.load_model(path)


def check_whole(path: Path) -> None:
    """Checks all of a file against the check sums in it.

    Args:
        path: Path. The file; it must exist.

    Raises:
        BrokenFileError: If it is not what was written.
        OSError: If it cannot be read.
    """
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
            names = archive.namelist()
        # Python does not compare the directory of members with the number of them. A wrong byte
        # there can hide a member.
        (n_members,) = struct.unpack_from("<H", content, len(content) - END_OF_ARCHIVE + 10)
    except Exception as error:
        # A wrong byte can raise whatever the decoders of headers and of data raise.
        raise BrokenFileError(f"{path} was truncated or altered: {error}.") from error
    if broken is not None:
        raise BrokenFileError(f"{path} was altered: the check sum of its {broken} is wrong.")
    if len(names) != n_members:
        raise BrokenFileError(f"{path} was altered: it has {n_members} members, not {len(names)}.")
    if not {"config.json", "model.weights.h5"} <= set(names):
        raise BrokenFileError(f"{path} is no learner's file: it has only {', '.join(names)}.")


def read_progress(path: Path) -> Progress | None:
    """Reads how far the run was when a file was written.

    Args:
        path: Path. The file, whole.

    Returns:
        The progress; None if tfmeta 0.1 wrote the file.

    Raises:
        BrokenFileError: If a later version of tfmeta wrote the file.
    """
    with zipfile.ZipFile(path) as archive:
        if MEMBER not in archive.namelist():
            return None
        content = json.loads(archive.read(MEMBER))
    try:
        return Progress(**content)
    except TypeError as error:
        raise BrokenFileError(f"{path} is of another version of tfmeta: {error}") from error


def read_old_progress(
    path: Path, recipe: dict[str, Any], steps_per_epoch: int, history: list[dict[str, float]]
) -> Progress:
    """Works out how far the run was from a file of tfmeta 0.1, which was written after an epoch.

    Args:
        path: Path. The file, whole.
        recipe: dict. The recipe of the folder.
        steps_per_epoch: int. Its steps per epoch.
        history: list of dict. The rows of `history.csv`.

    Raises:
        BrokenFileError: If the history is shorter than that.
    """
    # Loss scaling skips some steps, but not as many as an epoch has.
    taken = keras_internals.steps_taken(load_best(path).optimizer)
    epoch = math.ceil(taken / steps_per_epoch)
    if len(history) < epoch:
        raise BrokenFileError(
            f"{path} was written after epoch {epoch}, but history.csv has {len(history)} rows."
        )
    return Progress(recipe, epoch=epoch, history=history[:epoch])
