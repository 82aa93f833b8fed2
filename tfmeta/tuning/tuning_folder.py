"""The folder of a search: checks, locks and reads its files."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock

from tfmeta.tuning.search_space import SearchSpace

BEST, TABLE, TRIALS = "best.yaml", "trials.csv", "tuning.json"
# KerasTuner's own files.
TUNER = "tuner"
LOCK = ".lock"


def check_free(folder: Path, settings: dict[str, Any]) -> None:
    """Checks that a folder is empty, or holds a search with these settings.

    Args:
        folder: Path. The folder; it need not exist.
        settings: dict. The settings.

    Raises:
        ValueError: If there is anything else.
    """
    if not folder.exists() or {path.name for path in folder.iterdir()} <= {LOCK}:
        return
    if not (folder / TRIALS).is_file():
        raise ValueError(
            f"{folder} is neither empty nor the folder of a search. Choose another --output."
        )
    found = _read(folder)
    # By way of JSON, in which tuples become lists.
    for name, value in json.loads(json.dumps(settings)).items():
        if found.get(name) != value:
            raise ValueError(
                f"{folder} holds a search with another {name}. Choose another --output, or remove "
                "it."
            )


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes from searching into a folder.

    Args:
        folder: Path. The folder, which is made if need be.

    Raises:
        ValueError: If another process searches into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"Another process is tuning into {folder}. Wait for it, or choose another --output."
        ) from None
    try:
        yield
    finally:
        lock.release()


def read_past(
    folder: Path, space: SearchSpace, objective: str
) -> tuple[list[dict[str, Any]], list[float]]:
    """Reads what an earlier search tried.

    Args:
        folder: Path. Its folder.
        space: SearchSpace. The space of the new search.
        objective: str. What the new search optimises.

    Returns:
        The configurations, and their values of the objective; failed trials are left out.

    Raises:
        ValueError: If there is no such search, or it had another space or objective.
    """
    found = _read(folder)
    if found.get("objective") != objective:
        raise ValueError(
            f"{folder} searched for the best {found.get('objective')}, but this recipe is tuned "
            f"for {objective}."
        )
    names = set(found["space"]["parameters"])
    if names != space.parameters.keys():
        raise ValueError(
            f"{folder} searched {', '.join(sorted(names))}, but this search is over "
            f"{', '.join(sorted(space.parameters))}: give --search the same names."
        )
    finished = [t for t in found["trials"] if t[objective] is not None]
    finished = [t for t in finished if math.isfinite(t[objective])]
    if not finished:
        raise ValueError(f"{folder} has no finished trial to start from.")
    configurations = [trial["values"] for trial in finished]
    try:
        space.encode(configurations)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return configurations, [trial[objective] for trial in finished]


def _read(folder: Path) -> dict[str, Any]:
    file = folder / TRIALS
    if not file.is_file():
        raise ValueError(f"{folder} is no folder of a search: it has no {TRIALS}.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is broken: {error}.") from error
    if not isinstance(content, dict) or not {"space", "objective", "trials"} <= content.keys():
        raise ValueError(f"{file} is broken: it must hold a search.")
    return content


def table_text(rows: Sequence[dict[str, Any]], objective: str) -> str:
    """Returns the text of the table of trials, in the order in which they began.

    Args:
        rows: sequence of dict. With `values`, the objective and `seconds`.
        objective: str. Its name.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(rows[0]["values"]) if rows else []
    writer.writerow(["trial", *names, objective, "seconds"])
    for i, row in enumerate(rows, start=1):
        seconds = None if row["seconds"] is None else round(row["seconds"], 1)
        writer.writerow([i, *row["values"].values(), row[objective], seconds])
    return text.getvalue()


def read_table(folder: str | os.PathLike[str]) -> list[list[str]]:
    """Reads the table of trials that a search wrote.

    Args:
        folder: str or path. Its folder.

    Returns:
        list of rows of texts; the first has the names of the columns.
    """
    with (Path(folder) / TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))
