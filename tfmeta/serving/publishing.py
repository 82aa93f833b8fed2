"""Publishes versions of a servable so that a server only ever sees whole ones.

TF Serving polls a folder `NAME` and loads its subfolders that have a number for a name, the largest
by default, as soon as they are there. So a version is made under another name and renamed:

    NAME/5/                   a version: from its first moment whole and on the disk
    NAME/.lock                held while versions are numbered, renamed and pruned
    NAME/.tmp-<unique>/       a version in the making
    NAME/.tmp-<unique>.lock   held by its publisher, so that the others know that it is at work
    NAME/.old-<unique>/       a version that is being deleted

The locks are `flock`s, which the kernel releases when their holder dies, however it dies; what it
leaves behind is removed by the next publisher. POSIX only. Nothing but the standard library is
imported here.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOCK = ".lock"
MAKING = ".tmp-"
DELETING = ".old-"


def publish(folder: Path, write: Callable[[Path], None], keep: int = 3) -> Path:
    """Publishes a new version of a servable, and deletes the oldest.

    Any number of publishers, processes or threads, may do so at once: `write` runs in all of them
    at the same time, and the versions are numbered in the order in which they are ready. Whenever a
    publisher is killed, its version is there and whole, or not there at all.

    A number is one more than the largest in the folder, empty subfolders and files counted, so it
    is never given twice while the newest version stays where it is.

    Args:
        folder: The servable's folder `NAME`; made with its parents where there is none. What is no
            version in it stays as it is, but for names that begin with `.tmp-` or `.old-`.
        write: Fills the empty folder that it is given. It is the only one to write there, and
            must have finished writing when it returns.
        keep: How many of the newest versions stay, the new one included. With 1, a server that
            is still loading the version before finds it gone; it then loads the new one.

    Returns:
        The folder of the new version, `NAME/<version>`.

    Raises:
        ValueError: `keep` is no integer or below 1, `write` wrote nothing, or the numbers that a
            server can read are used up.
        NotADirectoryError: `folder` is a file.
        Exception: Whatever `write` raises. No version has then been added or pruned, and neither
            the unfinished one nor a folder made for it stays.

    Warns:
        RuntimeWarning: Something old could not be deleted. The new version has been published all
            the same, and the next publisher tries again.
    """
    if not isinstance(keep, int) or keep < 1:
        raise ValueError(f"keep must be an integer of at least 1; got {keep!r}.")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder, or not exist; it is a file.")
    with _new_folders(folder) as new, _making(folder) as temporary:
        write(temporary)
        if not any(temporary.iterdir()):
            raise ValueError(
                f"write must put the files of the version into the folder that it is given; it "
                f"left {temporary} empty."
            )
        _sync(temporary)
        with locked(folder):
            version = folder / str(_next_number(folder))
            temporary.rename(version)
            for changed in (folder, *(path.parent for path in new)):
                _sync_entry(changed)
            _prune(folder, keep)
            _remove_leftovers(folder)
    return version


def versions(folder: Path) -> list[int]:
    """The versions in a servable's folder, ascending; none if there is no such folder.

    These are the subfolders named by a number as `publish` writes it, without leading zeros.
    """
    if not folder.exists():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if re.fullmatch("0|[1-9][0-9]*", path.name) and path.is_dir()
    )


def _next_number(folder: Path) -> int:
    """One more than every number among the names, files and `007` included: the server reads those.

    Renaming to a number that is not free would replace an empty folder without an error.
    """
    limit = 2**63  # The server reads int64, and skips what is larger.
    numbers = [int(p.name) for p in folder.iterdir() if re.fullmatch("[0-9]+", p.name)]
    number = max((n for n in numbers if n < limit), default=0) + 1
    if number == limit:
        raise ValueError(
            f"The next version must be below 2**63 for a server to read it, but {folder} has "
            f"version {number - 1}: publish to another folder."
        )
    return number


# === Locks ===


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes this the only process and thread that has this folder locked; makes it, too.

    In a servable's folder, it is the only one that numbers, renames or deletes versions.
    """
    lock = _acquire(folder / LOCK)
    try:
        yield
    finally:
        # Closing is not enough where another thread has forked meanwhile: the child has it, too.
        fcntl.flock(lock, fcntl.LOCK_UN)
        lock.close()


def _acquire(path: Path) -> BinaryIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), ExitStack() as on_failure:
            lock = on_failure.enter_context(path.open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            # While this waited, the file may have been removed, and a new one locked by another.
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                on_failure.pop_all()
                return lock


@contextmanager
def _making(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that belongs to this publisher; removes it unless it was renamed."""
    temporary = folder / f"{MAKING}{uuid.uuid4().hex}"
    owner = _owner(temporary)
    with ExitStack() as at_end:
        # The others look for owners only while they have the lock, so none finds it half made.
        with locked(folder):
            _remove_leftovers(folder)
            lock = at_end.enter_context(owner.open("xb"))
            at_end.callback(owner.unlink, missing_ok=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
            at_end.callback(shutil.rmtree, temporary, ignore_errors=True)
            temporary.mkdir()  # Not by tempfile, whose folders only their user can read.
        yield temporary


@contextmanager
def _new_folders(folder: Path) -> Iterator[list[Path]]:
    """Yields the missing ones of `folder` and its parents; removes them after an exception."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield missing
    except BaseException:
        with suppress(OSError):
            if missing:
                with locked(folder):
                    if [path.name for path in folder.iterdir()] == [LOCK]:
                        (folder / LOCK).unlink()
            for path in missing:
                path.rmdir()  # Fails if another publisher has begun to use it.
        raise


def _owner(path: Path) -> Path:
    """The file that the publisher at work in `.tmp-<unique>` has locked."""
    return path if path.suffix == LOCK else path.with_name(path.name + LOCK)


def _is_abandoned(path: Path) -> bool:
    try:
        with _owner(path).open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


# === Deleting; call these with the folder locked ===


def _prune(folder: Path, keep: int) -> None:
    """Takes all but the newest versions out of the readers' sight, for good."""
    old = versions(folder)[:-keep]
    for version in old:
        path = folder / str(version)
        with _failing_with_a_warning(path):
            path.rename(folder / f"{DELETING}{uuid.uuid4().hex}")
    if old:
        _sync_entry(folder)


def _remove_leftovers(folder: Path) -> None:
    """Deletes what was pruned, and what publishers that died have left."""
    for path in list(folder.iterdir()):
        with _failing_with_a_warning(path):
            if path.name.startswith(DELETING) or (
                path.name.startswith(MAKING) and _is_abandoned(path)
            ):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


@contextmanager
def _failing_with_a_warning(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        warnings.warn(
            f"{path} could not be deleted, which the next publisher will try again: {error}",
            RuntimeWarning,
            stacklevel=5,
        )


# === Writing through to the disk ===


def _sync(path: Path) -> None:
    """Writes a file, or a folder and all in it, to the disk. Links are not followed."""
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        for child in path.iterdir():
            _sync(child)
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        _sync_entry(path)


def _sync_entry(path: Path) -> None:
    """Writes a file, or the list of names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
