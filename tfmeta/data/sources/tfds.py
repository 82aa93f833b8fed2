"""Any image-classification data set of TensorFlow Datasets."""

from __future__ import annotations

import warnings
from typing import Any

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.sources.from_tfds import Directory, prepared_builder, read_classes, version_of
from tfmeta.data.splits import check_split, proportional_sizes, split_classes


def tfds_dataset(
    name: str,
    split: str = "train",
    data_dir: Directory = None,
    image_size: tuple[int, int] | None = None,
) -> ClassDataset:
    """Any TensorFlow Datasets data set with images and a label, split by class.

    The data set's own splits are joined: a few-shot learner is tested on classes that it has never
    seen, and the splits of ordinary classification data sets share their classes. Instead,
    64 % of the classes are for training, 16 % for validation and 20 % for the test, drawn by a
    fixed seed over the sorted class names.

    Args:
        name: str. Name of the data set, with its configuration if it has several: "cifar100" or
            "cifar10_corrupted/brightness_1".
        split: str. "train", "validation", "test" or "all". Defaults to "train".
        data_dir: str, path or None. TensorFlow Datasets' directory. Defaults to its own default.
        image_size: (height, width) in pixels, or None. The size to resize images to, needed if
            they differ in size. Defaults to None: their own size.

    Raises:
        ValueError: If the data set is unknown, has no image or label, or its images differ in
            size and `image_size` is not given.
        ConnectionError: If it had to be downloaded and could not be.

    Warns:
        UserWarning: If there are examples without a label, which are left out.
    """
    check_split(split)
    builder = prepared_builder(name, data_dir)
    features: dict[str, Any] = dict(builder.info.features.items())
    label: Any = features.get("label")
    if "image" not in features or not hasattr(label, "names"):
        raise ValueError(
            f"{name!r} has the features {sorted(features)}; an image and a class label named "
            '"image" and "label" are needed. Load it yourself and pass arrays (x, y).'
        )
    height, width, channels = features["image"].shape
    if image_size is not None:
        height, width = image_size
    if height is None or width is None:
        raise ValueError(f"The images of {name!r} differ in size: give image_size=(height, width).")
    image_format = ImageFormat(height, width, channels or 3)
    splits = sorted(builder.info.splits)
    x, y = read_classes(builder, splits, label.names, image_format)
    n_unlabelled = sum(builder.info.splits[part].num_examples for part in splits) - len(x)
    if n_unlabelled:
        warnings.warn(
            f"Left out {n_unlabelled} examples of {name!r} that have no label (-1) in its splits "
            f"{', '.join(splits)}.",
            stacklevel=4,
        )
    source = {"name": name, "split": split}
    version = version_of(builder)
    whole = ClassDataset.from_arrays(x, y, label.names, image_format, source, version)
    return whole.subset(split_classes(whole.class_names, split, proportional_sizes(len(whole))))
