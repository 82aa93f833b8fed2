"""Examples from files: tables of numbers and images, as `tfmeta adapt` and `predict` read them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tfmeta.data.images import IMAGE_SUFFIXES, ImageFormat

# Images that people have, and that are not read.
_OTHER_IMAGE_SUFFIXES = (".avif", ".heic", ".heif", ".jxl", ".tif", ".tiff", ".webp")


def read_csv(path: Path) -> np.ndarray:
    """Reads a CSV file of numbers without a header.

    Args:
        path: Path. The file.

    Returns:
        float32 `[rows, columns]`, at least one row.

    Raises:
        ValueError: If there is no such file, or it is empty or contains anything but finite
            numbers in rows of equal length.
    """
    if not path.is_file():
        raise ValueError(f"No such file or folder: {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # NumPy warns of an empty file; the error below says it.
            table = np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"{path} must be a CSV file of numbers without a header: {error}"
        ) from error
    if not table.size:
        raise ValueError(f"{path} has no examples.")
    if not np.isfinite(table).all():
        raise ValueError(f"The numbers in {path} must be finite.")
    return table


def keep_images(paths: Iterable[Path]) -> list[Path]:
    """Keeps the image files that can be read, and warns of those that cannot.

    Args:
        paths: iterable of Path. Any files and folders.

    Returns:
        Those with one of the `IMAGE_SUFFIXES`, sorted.
    """
    paths = sorted(paths)
    unread = [path for path in paths if path.suffix.lower() in _OTHER_IMAGE_SUFFIXES]
    if unread:
        warnings.warn(
            f"Skipped {len(unread)} image(s) in {unread[0].parent}, such as {unread[0].name}: only "
            f"{', '.join(IMAGE_SUFFIXES)} files are read. Convert them to PNG or JPEG.",
            stacklevel=3,
        )
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]


def image_files(path: Path) -> list[Path]:
    """Finds the image files in a folder and its sub-folders.

    Args:
        path: Path. A folder, or a single image file.

    Returns:
        The files, sorted; at least one.

    Raises:
        ValueError: If there is no such file or folder, or no image that can be read.
    """
    if path.is_dir():
        files = keep_images(path.rglob("*"))
        if not files:
            raise ValueError(f"{path} has no images ({', '.join(IMAGE_SUFFIXES)}).")
        return files
    if not path.is_file():
        raise ValueError(f"No such file or folder: {path}.")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(
            f"{path} cannot be read as an image: expected one of {', '.join(IMAGE_SUFFIXES)}. "
            "Convert it to PNG or JPEG."
        )
    return [path]


def read_images(files: Sequence[Path], image_format: ImageFormat) -> np.ndarray:
    """Reads image files as they were read in training.

    Args:
        files: sequence of Path. At least one image file.
        image_format: ImageFormat. The size, channels and colour to bring them to.

    Returns:
        float32 `[N, height, width, channels]` in [0, 1].

    Raises:
        ValueError: If a file is broken or not an image.
    """
    import tensorflow as tf

    pixels = []
    for file in files:
        try:
            pixels.append(image_format.from_bytes(file.read_bytes()).numpy())
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"{file} is broken, or not an image.") from error
    return np.stack(pixels).astype(np.float32) / 255
