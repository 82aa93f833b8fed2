"""Finds image files in folders, by one rule for training, `tfmeta adapt` and `tfmeta predict`."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from tfmeta.data.decoding import image_suffixes, printable

# Folders and files that operating systems, servers and tools leave beside one's own, in lower
# case. Names that begin with a dot are hidden and never read either.
SYSTEM_NAMES = {
    *("__macosx", "@eadir", "@tmp", "#recycle", "#snapshot", "lost+found", "__pycache__"),
    *("$recycle.bin", "system volume information", "found.000"),
}
# Files that are left out without a word: they are everywhere, and nobody takes them for images.
UNTOLD_NAMES = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", "icon\r"}

# Examples of a reason in a warning.
N_EXAMPLES = 2


class Skipped:
    """Notes what was left out of a folder, by reason.

    Args:
        root: Path. The folder, which a warning names.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, path: Path) -> None:
        """Notes a file or folder.

        Args:
            reason: str. What it is, for example "hidden".
            path: Path. The file or folder.
        """
        name = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        self._names.setdefault(reason, []).append(printable(str(name)))

    def summary(self) -> str:
        """Says how many were left out for each reason, with examples; "" if none were."""
        return "; ".join(
            f"{len(names)} {reason} ({', '.join(names[:N_EXAMPLES])}"
            + (", …)" if len(names) > N_EXAMPLES else ")")
            for reason, names in self._names.items()
        )

    def warn(self) -> None:
        """Gives one warning of all that was left out, if anything was."""
        if self._names:
            n = sum(map(len, self._names.values()))
            what = "file or folder" if n == 1 else "files and folders"
            warnings.warn(
                f"Skipped {n} {what} in {printable(str(self.root))}: {self.summary()}.",
                stacklevel=_level_of_caller(),
            )


def _level_of_caller() -> int:
    """Returns the `stacklevel` at which the function above was called from outside of tfmeta."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("tfmeta."):
        level, frame = level + 1, frame.f_back
    return level


def find_images(folder: Path, skipped: Skipped) -> list[Path]:
    """Finds the image files in a folder and in its sub-folders.

    Args:
        folder: Path. The folder.
        skipped: Skipped. What is left out is added to it.

    Returns:
        The files, in the order of their names, folder by folder.
    """
    return list(_walk(folder, skipped, {folder.resolve()}))


def find_classes(root: Path, drop_empty: bool = False) -> tuple[dict[str, list[Path]], Skipped]:
    """Finds the classes of a folder, and their image files.

    Args:
        root: Path. A folder with one sub-folder of images per class.
        drop_empty: bool. Whether to leave out classes without images. Defaults to False: they are
            an error.

    Returns:
        The image files of each class, by its name in alphabetical order; and what was left out, of
        which the caller should warn. Bytes of a name that are not UTF-8 are written as in `\\xe9`.

    Raises:
        ValueError: If there are no classes, or a class has no images.
    """
    skipped = Skipped(root)
    classes: dict[str, list[Path]] = {}
    for path, is_folder in _entries(root, skipped):
        if is_folder:
            classes[printable(path.name)] = find_images(path, skipped)
        else:
            skipped.add("not in a sub-folder of a class", path)
    empty = [name for name, files in classes.items() if not files]
    if drop_empty:
        for name in empty:
            skipped.add("without images", root / name)
            del classes[name]
        empty = []
    if not classes or empty:
        what = f"{empty[:3]} have none" if empty else "it has no sub-folder"
        summary = skipped.summary()
        raise ValueError(
            f"{printable(str(root))} must have one sub-folder of images "
            f"({', '.join(image_suffixes())}) per class; {what}"
            + (f". Skipped: {summary}." if summary else ".")
        )
    return classes, skipped


def image_files(path: Path) -> list[Path]:
    """Finds the image files in a folder and its sub-folders, and warns of what is left out.

    Args:
        path: Path. A folder, or a single image file.

    Returns:
        The files, in the order of `find_images`; at least one.

    Raises:
        ValueError: If there is no such file or folder, or no image that can be read.
    """
    if path.is_dir():
        skipped = Skipped(path)
        files = find_images(path, skipped)
        if not files:
            summary = skipped.summary()
            raise ValueError(
                f"{printable(str(path))} has no images ({', '.join(image_suffixes())})"
                + (f". Skipped: {summary}." if summary else ".")
            )
        skipped.warn()
        return files
    if not path.exists():
        raise ValueError(f"No such file or folder: {printable(str(path))}.")
    if not path.is_file() or path.suffix.lower() not in image_suffixes():
        raise ValueError(
            f"{printable(str(path))} cannot be read as an image: expected a file with one of the "
            f"suffixes {', '.join(image_suffixes())}. Convert it to PNG or JPEG."
        )
    return [path]


def _walk(folder: Path, skipped: Skipped, above: set[Path]) -> Iterator[Path]:
    """Yields the image files of a folder; `above` are the folders that it lies in."""
    for path, is_folder in _entries(folder, skipped):
        if not is_folder:
            if path.suffix.lower() in image_suffixes():
                yield path
            else:
                suffix = path.suffix.lower()
                skipped.add(f"of a kind that is not read: {printable(suffix or 'no suffix')}", path)
        elif (target := path.resolve()) in above:
            skipped.add("linked to a folder that it lies in", path)
        else:
            yield from _walk(path, skipped, above | {target})


def _entries(folder: Path, skipped: Skipped) -> Iterator[tuple[Path, bool]]:
    """Yields what is visible in a folder by name, and whether it is a folder."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path, name = Path(entry.path), entry.name.lower()
        if name in UNTOLD_NAMES:
            continue
        if name.startswith("."):
            skipped.add("hidden", path)
        elif name in SYSTEM_NAMES or name.startswith("~$"):
            skipped.add("of the system or of a tool", path)
        elif entry.is_dir():
            yield path, True
        elif entry.is_file():
            yield path, False
        elif entry.is_symlink():
            skipped.add("linked to nothing", path)
        else:
            skipped.add("no regular file", path)
