"""Publishes versions of a folder so that its readers see only complete ones.

TensorFlow Serving polls a folder `NAME` and loads the subfolder with the largest number as its name
as soon as it appears. So a version is made under another name and then renamed:

    NAME/5/                   a version: complete and on the disk from its first moment
    NAME/.lock                held while versions are numbered, renamed and pruned
    NAME/.tmp-<unique>/       a version in the making
    NAME/.tmp-<unique>.lock   held by its publisher, so that others see that it is working
    NAME/.old-<unique>/       a version that is being deleted

The operating system releases a lock when its holder dies for any reason. The next publisher removes
what the dead one left.
"""

from __future__ import annotations

import re
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from tfmeta.files import sync, sync_tree

LOCK = ".lock"
MAKING = ".tmp-"
DELETING = ".old-"

# Seconds between two attempts to get a lock. It is held for milliseconds only.
POLL_INTERVAL = 0.01


def publish(folder: Path, write: Callable[[Path], None], keep: int = 3) -> Path:
    """Publishes a new version of a folder, and deletes the oldest.

    Any number of processes and threads may publish at the same time: `write` runs in parallel, and
    versions are numbered in the order in which they are ready. If a publisher is killed, its
    version either exists and is complete, or does not exist.

    A version's number is one more than the largest in the folder, empty subfolders and files
    included. So no number is used twice as long as the newest version is not removed.

    Args:
        folder: Path. The folder `NAME`. It is made, with its parents, if it does not exist.
            Anything in it that is not a version stays as it is, except for names that begin with
            `.tmp-` or `.old-`.
        write: callable. Fills the empty folder whose path it is given. Nobody else may write there,
            and `write` must have finished writing when it returns.
        keep: int. How many of the newest versions stay, the new one included. With 1, a server that
            is still loading the previous version finds it gone, and loads the new one. Defaults to
            3.

    Returns:
        Path. The folder of the new version, `NAME/<version>`.

    Raises:
        ValueError: If `keep` is not an integer of at least 1, `write` wrote nothing, or the numbers
            that a server can read are used up.
        NotADirectoryError: If `folder` is a file.
        Exception: Whatever `write` raises. Then no version has been added or deleted, and the
            unfinished version and the folders made for it are removed.

    Warns:
        RuntimeWarning: If an old version or a leftover could not be deleted. The new version has
            been published, and the next publisher tries again.

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
        sync_tree(temporary)
        with locked(folder):
            version = folder / str(_next_number(folder))
            temporary.rename(version)
            for changed in (folder, *(path.parent for path in new)):
                sync(changed)
            _prune(folder, keep)
            _remove_leftovers(folder)
    return version


def versions(folder: Path) -> list[int]:
    """Lists the versions in a folder.

    Versions are the subfolders named by a number without leading zeros, as `publish` writes it.

    Args:
        folder: Path. The folder `NAME`; it need not exist.

    Returns:
        list of int. The versions, ascending; empty if the folder does not exist.

    Raises:
        NotADirectoryError: If `folder` is a file.
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

    Files and names like `007` count, because the server reads those, too. Renaming to a number that
    is taken would replace an empty folder without an error.
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
    """Locks a folder against other processes and threads; makes the folder if it does not exist.

    In a folder of versions, only the holder of the lock numbers, renames or deletes them.

    Args:
        folder: Path. The folder.
        keep_file: bool. Whether the file `.lock` stays in the folder afterwards. Defaults to True.

    Yields:
        None, while the folder is locked.
    """
    lock = _file_lock(folder / LOCK)
    while not lock.is_locked:
        folder.mkdir(parents=True, exist_ok=True)
        # A publisher that fails removes a folder that it made, even if another is waiting here.
        with suppress(FileNotFoundError):
            lock.acquire()
    try:
        yield
    finally:
        if not keep_file:
            # A process that waits for the removed lock file makes a new one.
            _unlink_if_possible(folder / LOCK)
        lock.release()


def _file_lock(path: Path) -> BaseFileLock:
    """Returns a lock, not yet acquired, that excludes other processes and threads."""
    return FileLock(path, poll_interval=POLL_INTERVAL)


def _unlink_if_possible(path: Path) -> None:
    """Deletes a lock file, unless the system is Windows and the file is open.

    On Windows filelock deletes the file when its holder releases the lock.
    """
    with suppress(OSError):
        path.unlink(missing_ok=True)


@contextmanager
def _making(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that belongs to this publisher; removes it unless it was renamed."""
    temporary = folder / f"{MAKING}{uuid.uuid4().hex}"
    owner = _owner(temporary)
    with ExitStack() as at_end:
        # Others look for owners only while they hold the lock, so none sees one half made.
        with locked(folder):
            _remove_leftovers(folder)
            at_end.callback(_unlink_if_possible, owner)
            at_end.enter_context(_file_lock(owner))
            at_end.callback(shutil.rmtree, temporary, ignore_errors=True)
            temporary.mkdir()  # Not with tempfile: only the user could read its folders.
        yield temporary


@contextmanager
def new_folders(folder: Path, keep_file: bool = True) -> Iterator[list[Path]]:
    """Yields the folders among `folder` and its parents that do not exist yet.

    If an exception passes, those that were made meanwhile are removed, unless they hold files.

    Args:
        folder: Path. The folder.
        keep_file: bool. As in `locked`. Defaults to True.

    Yields:
        list of Path. The missing folders, the deepest first.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield missing
    except BaseException:
        with suppress(OSError):
            if missing:
                with locked(folder, keep_file):
                    if [path.name for path in folder.iterdir()] == [LOCK]:
                        _unlink_if_possible(folder / LOCK)
            for path in missing:
                path.rmdir()  # Fails if another publisher has begun to use it.
        raise


def _owner(path: Path) -> Path:
    """Returns the file that the publisher working in `.tmp-<unique>` has locked."""
    return path if path.suffix == LOCK else path.with_name(path.name + LOCK)


def _is_abandoned(path: Path) -> bool:
    """Returns whether the publisher of `.tmp-<unique>` is dead; if so, deletes its lock file."""
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
    """Renames all but the newest versions so that readers no longer find them."""
    old = versions(folder)[:-keep]
    for version in old:
        path = folder / str(version)
        with _failing_with_a_warning(path):
            path.rename(folder / f"{DELETING}{uuid.uuid4().hex}")
    if old:
        sync(folder)


def _remove_leftovers(folder: Path) -> None:
    """Deletes pruned versions, and what dead publishers left."""
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
