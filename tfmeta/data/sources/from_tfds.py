"""Reads TensorFlow Datasets, for all sources that come from there."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.names import no_such_data

# Retries of a download. TensorFlow Datasets waits 0.2 s before the second, then twice as long each.
MOST_RETRIES = 4

Directory = str | os.PathLike[str] | None


def prepared_builder(name: str, data_dir: Directory) -> Any:
    """Gets the builder of a data set, and downloads and prepares the data set if necessary.

    Args:
        name: str. A TensorFlow Datasets name, such as "cifar10_corrupted/brightness_1".
        data_dir: str, path or None. TensorFlow Datasets' directory; None for its default.

    Returns:
        A `tfds.core.DatasetBuilder` that can be read.

    Raises:
        ValueError: If there is no such data set.
        ConnectionError: If it had to be downloaded and could not be.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(no_such_data(name)) from error
    if not builder.data_path.exists():
        try:
            with _few_retries():
                builder.download_and_prepare()
        except (OSError, tfds.download.DownloadError) as error:
            raise ConnectionError(
                f"{name!r} is not in {builder.data_path.parent.parent} and could not be downloaded "
                f"({type(error).__name__}: {error}). Give data_dir=, or set TFDS_DATA_DIR, to a "
                "directory of TensorFlow Datasets that has it."
            ) from error
    return builder


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """Lets TensorFlow Datasets give up a server that does not answer after seconds.

    Its own ten retries wait 204 s in all, for each file. It offers no option for that.
    """
    from tensorflow_datasets.core.download import downloader

    if not hasattr(downloader, "MAX_RETRIES"):  # another version
        yield
        return
    with mock.patch.object(downloader, "MAX_RETRIES", MOST_RETRIES):
        yield


def class_names_in(builder: Any, split: str) -> list[str]:
    """Finds the classes that have examples in a split.

    Args:
        builder: tfds.core.DatasetBuilder. A data set with a label.
        split: str. One of the data set's own splits.

    Returns:
        Names of classes, in the order of their labels.
    """
    names = builder.info.features["label"].names
    labels = read_feature(builder, [split], "label")
    return [names[label] for label in np.unique(labels) if label >= 0]


def read_feature(builder: Any, splits: Sequence[str], name: str) -> np.ndarray:
    """Reads one feature of all examples.

    Args:
        builder: tfds.core.DatasetBuilder. A data set.
        splits: sequence of str. The data set's own splits to read.
        name: str. A feature that is a number or a class.

    Returns:
        An array `[N]`, in stored order.
    """
    batches = [
        batch[name]
        for split in splits
        for batch in _examples(builder, split, **{name: True}).batch(1024).as_numpy_iterator()
    ]
    return np.concatenate(batches)


def read_classes(
    builder: Any, splits: Sequence[str], classes: Sequence[str], image_format: ImageFormat
) -> tuple[np.ndarray, np.ndarray]:
    """Reads all images of some classes.

    Args:
        builder: tfds.core.DatasetBuilder. A data set with an image and a label.
        splits: sequence of str. The data set's own splits to read.
        classes: sequence of str. Names of the classes to read.
        image_format: ImageFormat. The size, channels and colour to bring the images to.

    Returns:
        uint8 images `[N, height, width, channels]` and integer labels `[N]`, in stored order.
        Examples without a label (-1) are left out.

    Raises:
        ValueError: If there is no such example.
    """
    chosen = tf.constant(np.isin(builder.info.features["label"].names, classes))

    def is_chosen(example: dict[str, tf.Tensor]) -> tf.Tensor:
        label = example["label"]  # -1 if there is none
        return (label >= 0) & chosen[tf.maximum(label, 0)]

    def decode(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return image_format.from_plain(example["image"]), example["label"]

    batches = [
        batch
        for split in splits
        for batch in _examples(builder, split, image=True, label=True)
        .filter(is_chosen)  # Select before decoding, which takes most of the time.
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(1024)
        .as_numpy_iterator()
    ]
    if not batches:
        raise ValueError(
            f"{builder.info.name!r} has no labelled example of these classes in the splits "
            f"{', '.join(splits)}."
        )
    x, y = zip(*batches, strict=True)
    return np.concatenate(x), np.concatenate(y)


def dataset_of_classes(
    builder: Any,
    splits: Sequence[str],
    classes: Sequence[str],
    image_format: ImageFormat,
    source: dict[str, Any],
) -> ClassDataset:
    """Makes a data set of some classes, in the given order.

    Args:
        builder: tfds.core.DatasetBuilder. A data set with an image and a label.
        splits: sequence of str. The data set's own splits to read.
        classes: sequence of str. Names of the classes.
        image_format: ImageFormat. The size, channels and colour to bring the images to.
        source: dict. What the data are, for records.
    """
    x, y = read_classes(builder, splits, classes, image_format)
    names = builder.info.features["label"].names
    version = version_of(builder)
    return ClassDataset.from_arrays(x, y, names, image_format, source, version).subset(classes)


def version_of(builder: Any) -> Callable[[], str]:
    """Returns a function that returns the name and version of a data set.

    Args:
        builder: tfds.core.DatasetBuilder. The data set.
    """
    return functools.partial(str, builder.info.full_name)


def _examples(builder: Any, split: str, **features: Any) -> tf.data.Dataset:
    """Reads some features of a split's examples, in stored order; images stay encoded."""
    import tensorflow_datasets as tfds

    undecoded = {"image": tfds.decode.SkipDecoding()} if "image" in features else None
    data: tf.data.Dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(features, decoders=undecoded),
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return data
