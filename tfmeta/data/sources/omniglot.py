"""Omniglot, from TensorFlow Datasets."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.sources.from_tfds import (
    Directory,
    class_names_in,
    prepared_builder,
    read_classes,
    version_of,
)
from tfmeta.data.splits import check_split, split_classes


def omniglot(
    split: str = "train",
    data_dir: Directory = None,
    protocol: Literal["random1200", "lake"] = "random1200",
    rotations: bool = True,
) -> ClassDataset:
    """Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each; 28×28, ink = 1.

    Args:
        split: str. "train", "validation", "test" or "all". Defaults to "train".
        data_dir: str, path or None. TensorFlow Datasets' directory. Defaults to its own default.
        protocol: str. `"random1200"` is MAML's: 1,200 random characters for meta-training, of
            which 100 are for validation, and 423 for the test. `"lake"` is the data set's own: the
            background alphabets, of which 5 are for validation, and the evaluation alphabets for
            the test. Defaults to `"random1200"`.
        rotations: bool. Whether each character turned by 90, 180 and 270 degrees makes three
            further classes, in every split, as in the papers. Defaults to True.

    Returns:
        A data set with classes named like "Greek_3" or "Greek_3/90".

    Raises:
        ValueError: If there is no such split or protocol.
        ConnectionError: If Omniglot had to be downloaded and could not be.

    Reference:
        Lake, Salakhutdinov, Tenenbaum (2015), https://doi.org/10.1126/science.aab3050.
    """
    check_split(split)
    if protocol not in ("random1200", "lake"):
        raise ValueError(f'protocol must be "random1200" or "lake"; got {protocol!r}.')
    image_format = ImageFormat(28, 28, channels=1, invert=True)
    builder = prepared_builder("omniglot", data_dir)
    characters = builder.info.features["label"].names
    if protocol == "random1200":
        chosen = split_classes(characters, split, (1100, 100))
    else:
        chosen = _lake_split(builder, split)
    names = list(characters)
    x, y = read_classes(builder, ("train", "test"), chosen, image_format)
    if rotations:
        x = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)])
        y = np.concatenate([y + k * len(characters) for k in range(4)])
        names += [f"{name}/{90 * k}" for k in (1, 2, 3) for name in characters]
    source = {"name": "omniglot", "split": split, "protocol": protocol, "rotations": rotations}
    return ClassDataset.from_arrays(x, y, names, image_format, source, version_of(builder))


def _lake_split(builder: Any, split: str) -> list[str]:
    """Returns the characters of a split by Lake's protocol."""
    if split == "all":
        return list(builder.info.features["label"].names)
    if split == "test":
        return class_names_in(builder, "test")
    background = class_names_in(builder, "train")
    alphabets = sorted({_alphabet(name) for name in background})
    held_out = split_classes(alphabets, "validation", (len(alphabets) - 5, 5))
    for_validation = split == "validation"
    return [name for name in background if (_alphabet(name) in held_out) == for_validation]


def _alphabet(class_name: str) -> str:
    return class_name.rsplit("_", 1)[0]
