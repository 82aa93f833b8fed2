"""A folder with one sub-folder of images per class."""

from __future__ import annotations

import os
from pathlib import Path

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.image_folders import find_classes
from tfmeta.data.images import ImageFormat
from tfmeta.data.names import no_such_folder
from tfmeta.data.sources.from_files import OnError, check_on_error, dataset_of_files
from tfmeta.data.splits import check_split, proportional_sizes, split_classes


def folder(
    path: str | os.PathLike[str],
    split: str = "all",
    image_format: ImageFormat | None = None,
    on_error: OnError = "raise",
) -> ClassDataset:
    """A folder with one sub-folder of images per class; decoded when an episode needs them.

    The guide states which files are read, and how ("Your own pictures"). Their headers are read
    when the folder is loaded.

    A split is a share of the classes: 64 % are for training, 16 % for validation and 20 % for the
    test, drawn by a fixed seed over the sorted names of the sub-folders. The same names are
    therefore split in the same way everywhere, but one more sub-folder changes all splits. The
    `class_names` of the result say which classes a split has. To evaluate a learner on a folder of
    classes that it was not trained on, load all of them with `split="all"`.

    Args:
        path: str or path. The folder, absolute, relative to the working directory, or beginning
            with `~`. The PNG, JPEG, BMP, GIF, TIFF and WebP files in its sub-folders, and in
            theirs, are the images.
        split: str. "train", "validation", "test" or "all". Defaults to "all".
        image_format: ImageFormat or None. The size, channels and colour to bring the images to.
            Defaults to None: 84×84 RGB.
        on_error: str. What to do about a file that cannot be read: "raise" an error, or "skip" the
            file, and a sub-folder without images. To find all such files, "skip" decodes every
            file when the folder is loaded. Defaults to "raise".

    Raises:
        ValueError: If there is no such folder, it has no sub-folder, or a sub-folder has no
            images.
        UnreadableImageError: If a file is broken, by its header; otherwise when an episode needs
            it. This is a ValueError, too.

    Warns:
        UserWarning: If files are left out: once, with the number of files for each reason.
    """
    check_split(split)
    check_on_error(on_error)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(no_such_folder(path))
    classes, skipped = find_classes(root, drop_empty=on_error == "skip")
    chosen = split_classes(list(classes), split, proportional_sizes(len(classes)))
    try:
        return dataset_of_files(
            {name: classes[name] for name in chosen},
            image_format or ImageFormat(84, 84),
            {"name": root.name, "split": split},
            on_error,
            skipped,
        )
    finally:
        skipped.warn()
