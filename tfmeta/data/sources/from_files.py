"""Data sets of image files, shared by miniImageNet and folders."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.decoding import UnreadableImageError
from tfmeta.data.image_folders import Skipped
from tfmeta.data.image_reader import ImageReader, check_file, check_files, read_file
from tfmeta.data.images import ImageFormat
from tfmeta.data.sources.file_digest import file_digest

OnError = Literal["raise", "skip"]


def check_on_error(on_error: str) -> None:
    """Raises a ValueError unless `on_error` is "raise" or "skip"."""
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip"; got {on_error!r}.')


def dataset_of_files(
    files_by_class: Mapping[str, Sequence[Path]],
    image_format: ImageFormat,
    source: dict[str, Any],
    on_error: OnError = "raise",
    skipped: Skipped | None = None,
) -> ClassDataset:
    """Makes a data set of image files, which are read when an episode needs them.

    Their headers are read at once.

    Args:
        files_by_class: mapping from str to sequence of Path. The image files of each class.
        image_format: ImageFormat. The size, channels and colour to bring the images to.
        source: dict. What the data are, for records.
        on_error: str. "raise", or "skip": all files are decoded at once, and those that cannot be
            read are left out. Defaults to "raise".
        skipped: Skipped. Notes what is left out. Needed for "skip".

    Raises:
        UnreadableImageError: If a file cannot be read, and is not skipped.
        ValueError: If no file can be read.
    """
    files = [file for images in files_by_class.values() for file in images]
    labels = np.repeat(np.arange(len(files_by_class)), [len(f) for f in files_by_class.values()])
    check = functools.partial(check_file, image_format=image_format)
    if on_error == "raise" or skipped is None:
        headers = check_files(files, check)
    else:

        def check_all(file: Path) -> Any:
            header = check(file)
            read_file(file, image_format)
            return header

        def note(file: Path, error: UnreadableImageError) -> None:
            skipped.add("that cannot be read", file)

        headers = check_files(files, check_all, note)
    is_read = np.array([header is not None for header in headers], bool)
    if files and not is_read.any():
        raise ValueError(f"None of the {len(files)} image files can be read.")
    names = list(files_by_class)
    for k in set(range(len(names))) - set(labels[is_read].tolist()):
        assert skipped is not None
        skipped.add("without images", skipped.root / names[k])
    kept = [k for k in range(len(names)) if is_read[labels == k].any()]
    readable = [file for file, read in zip(files, is_read, strict=True) if read]
    labels = labels[is_read]
    kept_names = [names[k] for k in kept]
    rows = [np.flatnonzero(labels == k) for k in kept]
    return ClassDataset(
        kept_names,
        rows,
        ImageReader(readable, [h for h in headers if h is not None], image_format),
        image_format.shape,
        image_format,
        source,
        functools.partial(file_digest, kept_names, [[readable[i] for i in r] for r in rows]),
    )
