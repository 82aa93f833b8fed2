"""The five data sets of the comparison as grey images of the same size, ink = 1 on 0."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

import tfmeta
from tfmeta.data import ClassDataset

SOURCES = ("omniglot", "glyphs", "emoji", "icons")
TARGETS = (*SOURCES, "digits")
SHAPE = (28, 28, 1)

Directory = str | os.PathLike[str] | None


def load(name: str, split: str, data_dir: Directory, drawings_dir: Directory) -> ClassDataset:
    """Loads a split of a data set as 28×28 grey images.

    Digits have one split, "test", with all ten: they are never trained on.

    Args:
        name: str. One of `TARGETS`.
        split: str. "train" or "test".
        data_dir: str, path or None. TensorFlow Datasets' directory for omniglot and glyphs.
        drawings_dir: str, path or None. The one for emoji and icons.
    """
    if name == "digits":
        if split != "test":
            raise ValueError(f'The digits have the split "test" alone; got {split!r}.')
        return as_ink(tfmeta.data.load(name, split="all"), light_is_ink=True)
    if name in ("emoji", "icons"):
        data = tfmeta.data.load(name, split=split, data_dir=drawings_dir, image_size=SHAPE[:2])
    else:
        data = tfmeta.data.load(name, split=split, data_dir=data_dir)
    return as_ink(data, light_is_ink=name != "emoji")


def as_ink(data: ClassDataset, *, light_is_ink: bool) -> ClassDataset:
    """Makes a data set of grey 28×28 images with ink = 1; returns one that has such images as is.

    Colours become their luma. Other sizes are resized as the library resizes image files.

    Args:
        data: ClassDataset. Images in [0, 1].
        light_is_ink: bool. Whether 1 is ink already. If not, dark becomes 1, and white paper 0.
    """
    if data.example_shape == SHAPE and light_is_ink:
        return data
    images = data.fetch(tf.constant(np.concatenate(data.rows)))
    if images.shape[-1] == 3:
        images = tf.image.rgb_to_grayscale(images)
    if images.shape[1:3] != SHAPE[:2]:
        images = tf.image.resize(images, SHAPE[:2], method="lanczos3", antialias=True)
    images = tf.clip_by_value(images, 0.0, 1.0)  # Lanczos resampling overshoots.
    labels = np.repeat(np.arange(len(data)), [len(rows) for rows in data.rows])
    return ClassDataset.from_arrays(
        images if light_is_ink else 1 - images, labels, data.class_names, source=data.source
    )
