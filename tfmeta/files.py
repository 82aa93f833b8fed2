"""Atomic file replacement: readers see the old file or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames the file there to `path` at the end.

    The new file is on the disk before it replaces the old one. The temporary file has the same
    suffix, because some writers choose the format by it.

    Args:
        path: Path. The file to write. Missing folders are made.

    Yields:
        Path. The temporary file, to be written by the caller. If an exception passes, it is deleted
        and `path` stays as it was.

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
    """Writes a UTF-8 text file, replacing it as a whole.

    Args:
        path: Path. The file to write. Missing folders are made.
        text: str. Its content.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, replacing it as a whole.

    Args:
        path: Path. The file to write. Missing folders are made.
        value: Any value that `json` can write.
    """
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Formats a value as the text of a JSON file.

    Args:
        value: Any value that `json` can write.

    Returns:
        str. The text, indented by 2 spaces, with a line break at the end.

    Raises:
        TypeError: If `json` cannot write the value.
    """
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def sha256_of(file: Path, copy: Path | None = None) -> str:
    """Returns the SHA-256 digest of a file, which is read a piece at a time.

    Args:
        file: Path. The file.
        copy: Path. A file to which to copy it meanwhile. Defaults to None: it is not copied.

    Returns:
        str. The digest, in hexadecimal.
    """
    digest = hashlib.sha256()
    with contextlib.ExitStack() as opened:
        source = opened.enter_context(file.open("rb"))
        target = opened.enter_context(copy.open("wb")) if copy else None
        while piece := source.read(1 << 20):
            digest.update(piece)
            if target:
                target.write(piece)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flushes a file, or the list of names in a folder, to the disk.

    On Windows this does nothing for folders: they cannot be opened there. On macOS the data may
    still be in the disk's own cache afterwards.

    Args:
        path: Path. The file or folder; it must exist.
    """
    is_windows = os.name == "nt"
    if is_windows and path.is_dir():
        return
    # Windows flushes only files that are open for writing.
    descriptor = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
