"""Examples from a user's own files: tables and images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmeta.data.images import ImageFormat
from tfmeta.data.sources import IMAGE_SUFFIXES


def read_csv(path: Path) -> np.ndarray:
    """Reads a CSV file of numbers without a header.

    Args:
        path: Path. The file.

    Returns:
        `[N, columns]` float32.

    Raises:
        ValueError: If the file is missing or empty, has text or rows of different lengths, or
            holds a number that is not finite.
    """
    if not path.is_file():
        raise ValueError(f"No such file or folder: {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of an empty file, which is refused below.
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


def image_files(path: Path) -> list[Path]:
    """Lists the image files of a folder and its sub-folders, or just the file.

    Args:
        path: Path. A folder, or an image file.

    Returns:
        The files, sorted.

    Raises:
        ValueError: If there is no such file or folder, or the folder has no images.
    """
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"{path} has no images ({', '.join(IMAGE_SUFFIXES)}).")
        return files
    if not path.is_file():
        raise ValueError(f"No such file or folder: {path}.")
    return [path]


def read_images(files: Sequence[Path], image_format: ImageFormat) -> np.ndarray:
    """Reads image files as a learner was trained on them.

    Args:
        files: Sequence of paths.
        image_format: ImageFormat. The size, channels and colour to bring the images to.

    Returns:
        `[N, height, width, channels]` float32 from 0 to 1.

    Raises:
        ValueError: If a file is broken, or no image.
    """
    pixels = []
    for file in files:
        try:
            pixels.append(image_format.from_bytes(file.read_bytes()).numpy())
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"{file} is broken, or no image.") from error
    return np.stack(pixels).astype(np.float32) / 255
