"""Finds out how far a run is, from what is left of its files."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from tfmeta.callbacks import checkpoint
from tfmeta.callbacks.checkpoint import BrokenFileError, Progress
from tfmeta.callbacks.run import Run
from tfmeta.callbacks.run_files import (
    BEST,
    CHECKPOINT,
    HISTORY,
    LEARNERS,
    PREVIOUS,
    history_text,
    read_history,
)
from tfmeta.files import replacing, write_text

# A checkpoint that cannot be read is kept under this name.
BROKEN = "checkpoint.broken.keras"


def find(run: Run, folder: Path) -> Progress:
    """Finds out how far a run is, puts that in `checkpoint.keras`, and mends what else was lost.

    If `checkpoint.keras` is missing, broken or of another run, `previous.keras` takes its place,
    and `best.keras` after that. `history.csv` and `best.keras` are written anew if they do not fit
    to it.

    Args:
        run: Run. What tells the run from others.
        folder: Path. The folder of the run, held.

    Returns:
        How far it is. If anything was trained, `checkpoint.keras` is the learner of then.

    Raises:
        ValueError: If something was trained, but no file is left to go on from; if the folder
            holds another run; or if the data changed since.

    Warns:
        RuntimeWarning: For each file that was lost, with what takes its place.
    """
    kept, lost = _kept(run, folder)
    if not kept:
        if any((folder / name).exists() for name in (HISTORY, PREVIOUS, BEST)):
            raise ValueError(
                f"{folder} holds a run of which nothing is left to resume from: "
                f"{'; '.join([*lost.values(), *_missing(folder, LEARNERS)])}. Put one of them "
                "back, or choose another folder to start anew."
            )
        for reason in lost.values():
            _warn(f"{reason}. No epoch was finished: training starts anew.")
            (folder / CHECKPOINT).replace(folder / BROKEN)
        return Progress(run.content, run.data)
    # The first of the newest.
    name, progress = max(kept.items(), key=lambda item: item[1].position)
    run.check_data(folder, progress.data)
    if CHECKPOINT not in kept:
        reason = lost.pop(CHECKPOINT, f"{folder / CHECKPOINT} is missing")
        _warn(
            f"{reason}. Resuming from {name}, after {progress}: what was trained since then is "
            "trained again."
        )
    for reason in lost.values():
        _warn(f"{reason}.")
    if name != CHECKPOINT:
        _promote(folder, name, is_broken=CHECKPOINT not in kept)
        kept[CHECKPOINT] = kept[name]
    progress = dataclasses.replace(progress, data=run.data, averaged=False)
    _mend_history(folder, progress)
    return _with_best(run, folder, progress, kept)


def describe(folder: Path) -> str:
    """Says in a sentence how far a run is saved.

    Args:
        folder: Path. The run folder.
    """
    for name in LEARNERS:
        try:
            progress = checkpoint.read_progress(folder / name)
        except Exception:
            # It is missing or damaged, which can raise anything; the next run will say so.
            continue
        if progress is None:
            return f"{folder} is saved, by tfmeta 0.1."
        return f"{folder} is saved up to {progress}."
    return f"Nothing is saved in {folder} yet."


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Says of an error while files of a run are written how far the run is saved.

    Args:
        folder: Path. The folder of the run.

    Raises:
        OSError: If a file cannot be written, such as on a full disk.
    """
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        raise OSError(f"{folder} cannot be written: {reason}. {describe(folder)}") from error


def score(row: dict[str, float], is_regression: bool) -> float:
    """Returns the number of a row of the history that is highest for the best learner.

    Args:
        row: dict. The row.
        is_regression: bool. Whether tasks are regression tasks.

    Returns:
        float. The accuracy in validation, or else the loss there with its sign changed; −∞ if
        validation diverged, or there was none.
    """
    if not is_validated(row):
        return -math.inf
    name = "val_accuracy" if "val_accuracy" in row and not is_regression else "val_loss"
    value = -row[name] if name == "val_loss" else row[name]
    return value if math.isfinite(value) else -math.inf


def is_validated(row: dict[str, float]) -> bool:
    """Returns whether a row of the history is of an epoch that ended with a validation."""
    return any(name.startswith("val_") for name in row)


# === The files ===


def _kept(run: Run, folder: Path) -> tuple[dict[str, Progress], dict[str, str]]:
    """Returns the progress in each file that can be used, and what is wrong with the others."""
    kept, lost, foreign = {}, {}, ""
    for name in LEARNERS:
        path = folder / name
        if not path.exists():
            continue
        try:
            checkpoint.check_whole(path)
            progress = checkpoint.read_progress(path) or _old_progress(run, folder, path)
        except BrokenFileError as error:
            lost[name] = str(error).removesuffix(".")
            continue
        foreign = run.difference(progress.recipe) or ""
        if foreign:
            lost[name] = f"{path} is of another run: {foreign}"
        else:
            kept[name] = progress
    if foreign and not kept:
        raise ValueError(f"{folder} holds another run: {foreign}. Choose another folder.")
    return kept, lost


def _old_progress(run: Run, folder: Path, path: Path) -> Progress:
    history = read_history(folder) if (folder / HISTORY).is_file() else []
    progress = checkpoint.read_old_progress(path, run.content, run.steps_per_epoch, history)
    scores = [score(row, run.is_regression) for row in progress.history]
    best = scores.index(max(scores)) + 1 if scores else None
    return dataclasses.replace(progress, best_epoch=best)


def _missing(folder: Path, names: tuple[str, ...]) -> list[str]:
    return [f"{folder / name} is missing" for name in names if not (folder / name).exists()]


def _promote(folder: Path, name: str, is_broken: bool) -> None:
    """Puts a file in the place of the checkpoint."""
    if is_broken and (folder / CHECKPOINT).exists():
        (folder / CHECKPOINT).replace(folder / BROKEN)
    if name == PREVIOUS:
        (folder / PREVIOUS).replace(folder / CHECKPOINT)
    else:
        with replacing(folder / CHECKPOINT) as temporary:
            shutil.copyfile(folder / name, temporary)


def _mend_history(folder: Path, progress: Progress) -> None:
    """Writes `history.csv` as the checkpoint has it; warns if rows were lost or changed."""
    path, text = folder / HISTORY, history_text(progress.history)
    lines = text.splitlines()
    found = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    if found == text:
        return
    # A run may be killed after a checkpoint and before its row is written, and a run of tfmeta 0.1
    # the other way round. So the file may differ in the last row.
    rows = found.splitlines()[: len(lines)]
    if rows != lines[: len(rows)] or len(rows) < len(lines) - 1 > 1:
        _warn(
            f"{path} is not that of {CHECKPOINT}, which has {progress.epoch} rows: it is written "
            "anew."
        )
    write_text(path, text)


# === The best learner ===


def _with_best(run: Run, folder: Path, progress: Progress, kept: dict[str, Progress]) -> Progress:
    """Checks that `best.keras` is the best so far; if not, writes the best that is left."""
    best = kept.get(BEST)
    if progress.best_epoch is None or (best is not None and best.epoch == progress.best_epoch):
        return progress
    left = {
        name: other
        for name, other in kept.items()
        if other.step == 0 and 0 < other.epoch <= progress.epoch
    }

    def value(name: str) -> tuple[bool, float]:
        epoch = left[name].epoch
        row = progress.history[epoch - 1]
        return epoch == progress.best_epoch, score(row, run.is_regression)

    if not left:
        _warn(f"{folder / BEST} of epoch {progress.best_epoch} is lost: the next epoch makes one.")
        return dataclasses.replace(progress, best_epoch=None)
    name = max(left, key=value)
    epoch = left[name].epoch
    if epoch == progress.best_epoch:
        print(f"{folder / BEST} is written anew from {name}.")
    else:
        _warn(
            f"{folder / BEST} of epoch {progress.best_epoch} is lost: the best learner that is "
            f"left is that of epoch {epoch}, in {name}."
        )
    if name != BEST:
        found = dataclasses.replace(left[name], best_epoch=epoch, averaged=False)
        checkpoint.save_best(checkpoint.load(folder / name), folder / BEST, found)
    return dataclasses.replace(progress, best_epoch=epoch)


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)
