"""The files from which a run resumes: their names, their lock, and the history."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

import filelock

from tfmeta.files import sweep

BEST = "best.keras"
CHECKPOINT = "checkpoint.keras"
PREVIOUS = "previous.keras"
HISTORY = "history.csv"
LOCK = ".lock"

# The files with learners, in the order in which a run resumes from them.
LEARNERS = (CHECKPOINT, PREVIOUS, BEST)


@contextlib.contextmanager
def held(folder: Path, names: Collection[str] = (HISTORY, *LEARNERS)) -> Iterator[None]:
    """Keeps other processes from training into a folder; sweeps what a killed one left there.

    The lock is released when the process ends, however it ends.

    Args:
        folder: Path. The run folder, which is made if need be.
        names: collection of str. The files whose temporaries are swept. Defaults to those from
            which a run resumes.

    Raises:
        ValueError: If another process trains into the folder, or nothing can be written there.
    """
    lock = filelock.FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"Another process is training into {folder}. Wait for it, or choose another folder."
        ) from None
    except OSError as error:
        raise ValueError(
            f"Nothing can be written into {folder}: {error.strerror}. Choose another folder."
        ) from error
    try:
        sweep(folder, names)
        yield
    finally:
        lock.release()


def history_text(history: list[dict[str, float]]) -> str:
    """Returns the text of a `history.csv`.

    Args:
        history: list of dict. A row for each epoch; one that was not validated has fewer values.
    """
    text = io.StringIO()
    names = dict.fromkeys(["epoch", *(name for row in history for name in row)])
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def read_history(folder: Path) -> list[dict[str, float]]:
    """Returns the rows of a run's `history.csv`, one per epoch.

    Args:
        folder: Path. The run folder.
    """
    with (folder / HISTORY).open(encoding="utf-8", newline="") as file:
        return [
            {k: int(v) if k == "epoch" else float(v) for k, v in row.items() if v}
            for row in csv.DictReader(file)
        ]
