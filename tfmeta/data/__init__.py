"""Where episodes come from."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from tfmeta.data import regression, sources
from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.regression import TaskDistribution

__all__ = ["DISTRIBUTIONS", "ClassDataset", "ImageFormat", "TaskDistribution", "load"]

DISTRIBUTIONS = {"sinusoid": regression.sinusoid, "linear": regression.linear}


def load(
    name: str | os.PathLike[str] | tuple[Any, Any],
    *,
    split: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Any:
    """Loads a source of episodes.

    Args:
        name: One of
            `"omniglot"` (options `protocol=`, `rotations=`; see `sources.omniglot`);
            `"glyphs"`, the embedded characters, made on first use without a network;
            `"digits"`, those of scikit-learn;
            `"mini_imagenet"`, from your own folder `mini_imagenet` in `data_dir`, whose CSV files
            are the split (see `sources.mini_imagenet`);
            `"cifar_fs"`, CIFAR-100 in the split of Bertinetto et al.;
            `"sinusoid"` or `"linear"`, distributions of regression tasks;
            the name of any TensorFlow Datasets data set with an image and a label (option
            `image_size=`);
            the path of a folder with one sub-folder of images per class (option
            `image_format=`, an `ImageFormat`);
            arrays `(x, y)` (option `class_names=`).
        split: "train", "validation", "test" or "all"; no class is in two of the first three.
            Defaults to "train" for named data sets and to "all" for folders and arrays. Task
            distributions have no splits: use different seeds.
        data_dir: Where TensorFlow Datasets keeps its data, and where `mini_imagenet` is; defaults
            to `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        **options: As above.

    Returns:
        A `ClassDataset`, or a `TaskDistribution`; both have `episodes(...)`.

    Raises:
        ValueError: If there is no such data set, split or option.
        ConnectionError: If it had to be downloaded and could not.

    Example:

    >>> import numpy as np
    >>> points = load((np.random.normal(size=(60, 2)), np.repeat([0, 1, 2], 20)))
    >>> inputs, query_y = next(iter(points.episodes(n_way=3, n_shot=2, n_query=5)))
    >>> inputs["support_x"].shape, query_y.shape
    (TensorShape([4, 6, 2]), TensorShape([4, 15]))
    """
    if split is not None:
        options["split"] = split
    if data_dir is not None:
        options["data_dir"] = data_dir
    if isinstance(name, tuple | list):
        return _call(sources.arrays, *name, **options)
    if isinstance(name, str) and name in DISTRIBUTIONS:
        return _call(DISTRIBUTIONS[name], **options)
    if isinstance(name, str) and name in sources.BY_NAME:
        return _call(sources.BY_NAME[name], **options)
    if not isinstance(name, str) or os.sep in name or Path(name).is_dir():
        return _call(sources.folder, name, **options)
    return _call(sources.tfds_dataset, name, **options)


def _call(function: Any, *args: Any, **options: Any) -> Any:
    """Calls a source, after checking that it takes these options."""
    names = list(inspect.signature(function).parameters)[len(args) :]
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise ValueError(
            f"{function.__name__!r} data takes the options {names or 'none'}; got {unknown}."
        )
    return function(*args, **options)
