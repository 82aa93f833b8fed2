"""Files that are either the old or the new, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; renames it to `path` at the end.

    The new file is on the disk before it takes the old one's place. The temporary file has the
    same suffix, because some writers choose the format by it.

    Args:
        path: The file to write. Missing folders are made.

    Example:

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with replacing(path) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file in one go."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file in one go."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Formats a value as the text of a JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def sync(path: Path) -> None:
    """Writes a file, or the list of names in a folder, through to the disk.

    On Windows this does nothing for folders: they cannot be opened there. On macOS the data may
    still be in the disk's own cache afterwards.
    """
    is_windows = os.name == "nt"
    if is_windows and path.is_dir():
        return
    # Windows writes through only what was opened for writing.
    descriptor = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
