"""Publishes versions of a folder so that its readers only ever see whole ones.

TensorFlow Serving polls a folder `NAME` and loads the largest of its subfolders that have a number
for a name, as soon as it appears. So a version is made under another name and then renamed:

    NAME/5/                   a version: whole and on the disk from its first moment
    NAME/.lock                held while versions are numbered, renamed and pruned
    NAME/.tmp-<unique>/       a version in the making
    NAME/.tmp-<unique>.lock   held by its publisher, so that the others know that it is at work
    NAME/.old-<unique>/       a version that is being deleted

The operating system releases a lock when its holder dies, however it dies. The next publisher
removes what the dead one has left.
"""

from __future__ import annotations

import re
import shutil
import stat
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from tfmeta.files import sync

LOCK = ".lock"
MAKING = ".tmp-"
DELETING = ".old-"

# Seconds between two attempts to get a lock. It is held for milliseconds only.
POLL_INTERVAL = 0.01


def publish(folder: Path, write: Callable[[Path], None], keep: int = 3) -> Path:
    """Publishes a new version of a folder, and deletes the oldest.

    Any number of publishers, processes or threads, may do so at once: `write` runs in all of them
    at the same time, and the versions are numbered in the order in which they are ready. Whenever a
    publisher is killed, its version is there and whole, or not there at all.

    A version's number is one more than the largest in the folder, empty subfolders and files
    included. So no number is given twice while the newest version stays in its place.

    Args:
        folder: The folder `NAME`. It is made, with its parents, if it does not exist. Anything in
            it that is not a version stays as it is, except for names that begin with `.tmp-` or
            `.old-`.
        write: Fills the empty folder that it is given. Nobody else may write there, and `write`
            must have finished writing when it returns.
        keep: How many of the newest versions stay, the new one included. With 1, a server that is
            still loading the previous version finds it gone, and loads the new one. Defaults to 3.

    Returns:
        The folder of the new version, `NAME/<version>`.

    Raises:
        ValueError: If `keep` is not an integer of at least 1, `write` wrote nothing, or the numbers
            that a server can read are used up.
        NotADirectoryError: If `folder` is a file.
        Exception: Whatever `write` raises. No version has then been added or deleted, and neither
            the unfinished one nor a folder made for it stays.

    Warns:
        RuntimeWarning: If something old could not be deleted. The new version has been published,
            and the next publisher tries again.

    Example:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp(), "few_shot")
    >>> publish(folder, lambda path: (path / "notes.txt").write_text("first")).name
    '1'
    >>> versions(folder)
    [1]
    """
    if not isinstance(keep, int) or keep < 1:
        raise ValueError(f"keep must be an integer of at least 1; got {keep!r}.")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder, or not exist; it is a file.")
    with new_folders(folder) as new, _making(folder) as temporary:
        write(temporary)
        if not any(temporary.iterdir()):
            raise ValueError(
                f"write must put the files of the version into the folder that it is given; it "
                f"left {temporary} empty."
            )
        _sync_tree(temporary)
        with locked(folder):
            version = folder / str(_next_number(folder))
            temporary.rename(version)
            for changed in (folder, *(path.parent for path in new)):
                sync(changed)
            _prune(folder, keep)
            _remove_leftovers(folder)
    return version


def versions(folder: Path) -> list[int]:
    """Lists the versions in a folder, ascending; empty if there is no such folder.

    Versions are the subfolders named by a number without leading zeros, as `publish` writes it.
    """
    if not folder.exists():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if re.fullmatch("0|[1-9][0-9]*", path.name) and path.is_dir()
    )


def _next_number(folder: Path) -> int:
    """Returns one more than the largest number among the names.

    Files and names like `007` count, for the server reads those, too. Renaming to a number that is
    taken would replace an empty folder without an error.
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
def locked(folder: Path, keep_file: bool = True) -> Iterator[None]:
    """Makes this the only process and thread that has this folder locked; makes the folder, too.

    In a folder of versions, only the holder of the lock numbers, renames or deletes them.

    Args:
        folder: The folder.
        keep_file: Whether the file `.lock` stays in the folder afterwards. Defaults to True.
    """
    lock = _file_lock(folder / LOCK)
    while not lock.is_locked:
        folder.mkdir(parents=True, exist_ok=True)
        # A publisher that fails removes the folder that it has made, even if another waits here.
        with suppress(FileNotFoundError):
            lock.acquire()
    try:
        yield
    finally:
        if not keep_file:
            # Whoever waits for a lock file that is gone makes a new one.
            _unlink_if_possible(folder / LOCK)
        lock.release()


def _file_lock(path: Path) -> BaseFileLock:
    """A lock, not yet acquired, that excludes other processes and the threads of this one."""
    return FileLock(path, poll_interval=POLL_INTERVAL)


def _unlink_if_possible(path: Path) -> None:
    """Deletes a lock file, unless the system is Windows and the file is open.

    There, whoever has it open deletes it: filelock does so when it releases a lock.
    """
    with suppress(OSError):
        path.unlink(missing_ok=True)


@contextmanager
def _making(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that belongs to this publisher; removes it unless it was renamed."""
    temporary = folder / f"{MAKING}{uuid.uuid4().hex}"
    owner = _owner(temporary)
    with ExitStack() as at_end:
        # The others look for owners only while they have the lock, so none finds it half made.
        with locked(folder):
            _remove_leftovers(folder)
            at_end.callback(_unlink_if_possible, owner)
            at_end.enter_context(_file_lock(owner))
            at_end.callback(shutil.rmtree, temporary, ignore_errors=True)
            temporary.mkdir()  # Not by tempfile, whose folders only their user can read.
        yield temporary


@contextmanager
def new_folders(folder: Path) -> Iterator[list[Path]]:
    """Yields the folders among `folder` and its parents that do not exist yet.

    After an exception it removes those that were made meanwhile, unless something is in them.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield missing
    except BaseException:
        with suppress(OSError):
            if missing:
                with locked(folder):
                    if [path.name for path in folder.iterdir()] == [LOCK]:
                        _unlink_if_possible(folder / LOCK)
            for path in missing:
                path.rmdir()  # Fails if another publisher has begun to use it.
        raise


def _owner(path: Path) -> Path:
    """The file that the publisher at work in `.tmp-<unique>` has locked."""
    return path if path.suffix == LOCK else path.with_name(path.name + LOCK)


def _is_abandoned(path: Path) -> bool:
    """Whether the publisher of `.tmp-<unique>` is dead; then its lock file is deleted."""
    owner = _owner(path)
    if not owner.exists():
        return True
    try:
        with _file_lock(owner).acquire(blocking=False):
            _unlink_if_possible(owner)
    except Timeout:
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
        sync(folder)


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


def _sync_tree(path: Path) -> None:
    """Writes a file, or a folder and all in it, to the disk. Links are not followed."""
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        for child in path.iterdir():
            _sync_tree(child)
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        sync(path)
