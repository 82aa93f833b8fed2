"""Atomic file replacement: readers see the old file or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# What `replacing` calls a temporary file: stem, a unique number and the suffix.
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}(\.[^.]*)?")


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


def sweep(folder: Path, names: Collection[str]) -> None:
    """Deletes the temporary files that processes left when they were killed in `replacing`.

    The caller must keep others from writing these files meanwhile, by a lock.

    Args:
        folder: Path. The folder of the files; it must exist.
        names: collection of str. The files' names; temporaries of other files stay.
    """
    for path in folder.iterdir():
        match = TEMPORARY.fullmatch(path.name)
        if match and match[1] + (match[2] or "") in names:
            path.unlink(missing_ok=True)


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """Yields a new folder beside `path`, in which to build what will be renamed to `path`.

    It is on the same disk, so that renaming is atomic. Nobody else may build `path` meanwhile. What
    a killed process left is removed.

    Args:
        path: Path. What will be built. Missing parents are made.

    Yields:
        Path. The folder. It is removed at the end, with all that is left in it.

    Raises:
        ValueError: If another process builds `path`.
    """
    import filelock  # Late, because it takes long, and most users of this module need no locks.

    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.making-"
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(f"Another process is writing {path}: wait for it.") from None
    try:
        for left in [p for p in path.parent.iterdir() if p.name.startswith(prefix)]:
            shutil.rmtree(left, ignore_errors=True)
        scratch = path.with_name(prefix + uuid.uuid4().hex)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        # Windows cannot delete it while it is open; there, filelock does it at the release.
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


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


def sync_tree(path: Path) -> None:
    """Flushes a file, or a folder and its content, to the disk. Links are not followed.

    Args:
        path: Path. The file or folder; it must exist.
    """
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        for child in path.iterdir():
            sync_tree(child)
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        sync(path)


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
