"""Data sets of image files, shared by miniImageNet and folders."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.sources.file_digest import file_digest


def dataset_of_files(
    names: Sequence[str],
    files: Sequence[Sequence[Path]],
    image_format: ImageFormat,
    source: dict[str, Any],
) -> ClassDataset:
    """Makes a data set of image files, which are read when an episode needs them.

    Args:
        names: sequence of str. A name for each class.
        files: sequence of sequences of Path. The image files of each class.
        image_format: ImageFormat. The size, channels and colour to bring the images to.
        source: dict. What the data are, for records.
    """
    with tf.device("CPU"):
        paths = tf.constant([str(f) for images in files for f in images])

    def read(row: tf.Tensor) -> tf.Tensor:
        return image_format.from_bytes(tf.io.read_file(paths[row]))

    def fetch(rows: tf.Tensor) -> tf.Tensor:
        pixels = tf.map_fn(read, rows, fn_output_signature=tf.uint8, parallel_iterations=16)
        return tf.cast(pixels, tf.float32) / 255

    ends = np.cumsum([len(images) for images in files])
    rows = np.split(np.arange(ends[-1]), ends[:-1])
    digest = functools.partial(file_digest, names, files)
    return ClassDataset(names, rows, fetch, image_format.shape, image_format, source, digest)
