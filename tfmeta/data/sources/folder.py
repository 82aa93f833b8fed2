"""A folder with one sub-folder of images per class."""

from __future__ import annotations

import os
from pathlib import Path

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import IMAGE_SUFFIXES, ImageFormat
from tfmeta.data.inputs import keep_images
from tfmeta.data.names import no_such_folder
from tfmeta.data.sources.from_files import dataset_of_files
from tfmeta.data.splits import check_split, proportional_sizes, split_classes


def folder(
    path: str | os.PathLike[str],
    split: str = "all",
    image_format: ImageFormat | None = None,
) -> ClassDataset:
    """A folder with one sub-folder of images per class; decoded when an episode needs them.

    A split is a share of the classes: 64 % are for training, 16 % for validation and 20 % for the
    test, drawn by a fixed seed over the sorted names of the sub-folders. The same names are
    therefore split in the same way everywhere, but one more sub-folder changes all splits. The
    `class_names` of the result say which classes a split has. To evaluate a learner on a folder of
    classes that it was not trained on, load all of them with `split="all"`.

    Args:
        path: str or path. The folder, absolute, relative to the working directory, or beginning
            with `~`. Its sub-folders' PNG, JPEG, BMP and GIF files are the images.
        split: str. "train", "validation", "test" or "all". Defaults to "all".
        image_format: ImageFormat or None. The size, channels and colour to bring the images to.
            Defaults to None: 84×84 RGB.

    Raises:
        ValueError: If there is no such folder, it has no sub-folder, or a sub-folder has no
            images.

    Warns:
        UserWarning: If images of other kinds (WebP, HEIC, TIFF, …) are skipped.
    """
    check_split(split)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(no_such_folder(path))
    classes = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = [keep_images(c.iterdir()) for c in classes]
    empty = [c.name for c, images in zip(classes, files, strict=True) if not images]
    if not classes or empty:
        raise ValueError(
            f"{root} must have one sub-folder of images ({', '.join(IMAGE_SUFFIXES)}) per class; "
            + (f"{empty[:3]} have none." if classes else "it has no sub-folder.")
        )
    names = [c.name for c in classes]
    source = {"name": root.name, "split": split}
    whole = dataset_of_files(names, files, image_format or ImageFormat(84, 84), source)
    return whole.subset(split_classes(names, split, proportional_sizes(len(names))))
