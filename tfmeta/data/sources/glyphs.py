"""Glyphs: the embedded default, drawn on first use without any network."""

from __future__ import annotations

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.sources.from_tfds import Directory, read_classes, version_of
from tfmeta.data.splits import check_split, proportional_sizes, split_classes


def glyphs(split: str = "train", data_dir: Directory = None) -> ClassDataset:
    """Characters of many scripts, drawn in the fonts that ship with matplotlib; 28×28, ink = 1.

    They are drawn on first use, in less than a minute, and kept in TensorFlow Datasets' default
    directory (the environment variable `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`).

    Args:
        split: str. "train", "validation", "test" or "all": 70 %, 10 % and 20 % of the classes, or
            all of them. Defaults to "train".
        data_dir: str, path or None. A directory of TensorFlow Datasets to look for them in. Nothing
            is written to it. Defaults to the default directory.

    Raises:
        ValueError: If there is no such split.

    Warns:
        RuntimeWarning: If the images are not those with which the published numbers were measured.
    """
    # Imported late because this imports matplotlib, Pillow, SciPy and TensorFlow Datasets.
    from tfmeta.data.glyphs import Glyphs, warn_unless_published

    check_split(split)
    builder = Glyphs(data_dir=data_dir)
    if not builder.data_path.exists():
        # A directory that was given is only read: it may belong to others.
        builder = Glyphs()
        builder.download_and_prepare()
    image_format = ImageFormat(28, 28, channels=1, invert=True)
    names = builder.info.features["label"].names
    classes = split_classes(names, split, proportional_sizes(len(names), 0.7, 0.1))
    x, y = read_classes(builder, ("all",), classes, image_format)
    warn_unless_published(split, x, y, classes)
    source = {"name": "glyphs", "split": split}
    version = version_of(builder)
    return ClassDataset.from_arrays(x, y, names, image_format, source, version).subset(classes)
