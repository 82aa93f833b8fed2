"""Sources of episodes.

Importing this package is cheap: TensorFlow is imported when a source is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tfmeta.data.images import ImageFormat
from tfmeta.data.names import resolve

if TYPE_CHECKING:
    from tfmeta.data.class_dataset import ClassDataset
    from tfmeta.data.embedding import embed
    from tfmeta.data.embedding_files import write_embeddings
    from tfmeta.data.task_distribution import TaskDistribution

__all__ = [
    "ClassDataset",
    "ImageFormat",
    "TaskDistribution",
    "embed",
    "load",
    "resolve",
    "write_embeddings",
]

_LAZY = {
    "ClassDataset": "tfmeta.data.class_dataset",
    "TaskDistribution": "tfmeta.data.task_distribution",
    "embed": "tfmeta.data.embedding",
    "write_embeddings": "tfmeta.data.embedding_files",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(
    name: str | os.PathLike[str] | tuple[Any, Any] | Mapping[str, Any],
    *,
    split: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Any:
    r"""Loads a source of episodes.

    The first line that fits decides what a name means:

    | name                       | source                                     | options          |
    | -------------------------- | ------------------------------------------ | ---------------- |
    | `"omniglot"`               | Omniglot, from TensorFlow Datasets         | `protocol=`,     |
    |                            |                                            | `rotations=`     |
    | `"glyphs"`                 | characters drawn on first use, offline     |                  |
    | `"emoji"`                  | emoji of nine vendors, in colour, drawn    | `image_size=`,   |
    |                            | from npm packages that you install         | `manual_dir=`    |
    | `"icons"`                  | icons of 64 families, grey, drawn from npm | `image_size=`,   |
    |                            | packages that you install                  | `manual_dir=`    |
    | `"digits"`                 | the handwritten digits of scikit-learn     |                  |
    | `"mini_imagenet"`          | your folder `mini_imagenet` in `data_dir`  |                  |
    | `"cifar_fs"`               | CIFAR-100 in the split of Bertinetto et al.|                  |
    | `"embeddings"`             | files of vectors in the folder `embeddings`| `features=`      |
    |                            | of `data_dir`, such as those of LEO's paper|                  |
    | `"sinusoid"`, `"linear"`   | distributions of regression tasks          |                  |
    | `"./images"`, `"/images"`, | a folder with one sub-folder of images per | `image_format=`, |
    | `"~/images"`, `"images/"`, | class: whatever begins with `.`, `/`, `~`  | `on_error=`      |
    | `r"C:\images"`, a `Path`   | or a drive, ends with `/` or has a `\`     |                  |
    | `"cifar100"`,              | a TensorFlow Datasets data set with an     | `image_size=`    |
    | `"cifar10_corrupted/fog_1"`| image and a label, and its configuration   |                  |
    | `"images"`, `"my/images"`  | a folder: any other name that has a `/` or | `image_format=`, |
    |                            | of which there is a folder                 | `on_error=`      |
    | any other text             | a data set prepared in `data_dir`          | `image_size=`    |
    | `(x, y)`                   | arrays                                     | `class_names=`   |
    | `{"cat": x, "dog": x}`     | arrays by class                            |                  |

    A local folder named `omniglot` is therefore written `"./omniglot"`. Relative paths start at
    the working directory. Each option is documented in the module of its source in
    `tfmeta.data.sources`.

    Args:
        name: str, path, pair of arrays, or mapping. See the table.
        split: str. "train", "validation", "test" or "all". No class is in two of the first three.
            Defaults to "train", and to "all" for folders and arrays. Task distributions have no
            splits: use different seeds.
        data_dir: str or path. The directory of TensorFlow Datasets, which also holds
            `mini_imagenet` and `embeddings`. Defaults to the environment variable `TFDS_DATA_DIR`,
            or else to `~/tensorflow_datasets`.
        **options: See the table.

    Returns:
        A `ClassDataset`, or a `TaskDistribution` for regression; both have `episodes(...)`.

    Raises:
        ValueError: If there is no such data set, folder, split or option.
        ConnectionError: If the data set had to be downloaded and could not be.

    Example:

    >>> import numpy as np
    >>> points = load((np.random.normal(size=(60, 2)), np.repeat([0, 1, 2], 20)))
    >>> inputs, query_y = next(iter(points.episodes(n_way=3, n_shot=2, n_query=5)))
    >>> inputs["support_x"].shape, query_y.shape
    (TensorShape([4, 6, 2]), TensorShape([4, 15]))
    """
    source = resolve(name)
    if split is not None:
        options["split"] = split
    if data_dir is not None:
        options["data_dir"] = data_dir
    source.check_options(options)
    arguments: tuple[Any, ...] = ()
    if isinstance(name, tuple | list):
        arguments = tuple(name)
    elif isinstance(name, Mapping) or source.kind in ("tfds", "folder"):
        arguments = (name,)
    return source.load(*arguments, **options)
