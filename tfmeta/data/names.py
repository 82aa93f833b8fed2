"""Resolves the name of a data set, for `tfmeta.data.load` and for recipes.

Nothing here imports TensorFlow, so that a recipe can be checked quickly.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import pkgutil
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

Kind = Literal["named", "regression", "tfds", "folder", "arrays"]


@dataclasses.dataclass(frozen=True)
class Source:
    """A source of episodes, and the options that it takes.

    Attributes:
        name: str. The name that was given, or "arrays".
        kind: str. `"named"` (a data set of our own), `"regression"` (a distribution of tasks),
            `"tfds"` (a TensorFlow Datasets data set), `"folder"` or `"arrays"`.
        loader: str. The function that loads it, as "module:function".
        options: tuple of str. Its own options. Defaults to none.
        has_splits: bool. Whether it takes `split=`. Defaults to True.
        has_data_dir: bool. Whether it takes `data_dir=`. Defaults to False.
    """

    name: str
    kind: Kind
    loader: str
    options: tuple[str, ...] = ()
    has_splits: bool = True
    has_data_dir: bool = False

    @property
    def is_regression(self) -> bool:
        """Whether its tasks are regression tasks."""
        return self.kind == "regression"

    @property
    def all_options(self) -> list[str]:
        """All options of `tfmeta.data.load` that the source takes, with `split` and `data_dir`."""
        general = (("split", self.has_splits), ("data_dir", self.has_data_dir))
        return [*(option for option, is_taken in general if is_taken), *self.options]

    def load(self, *arguments: Any, **options: Any) -> Any:
        """Calls `loader`, which imports TensorFlow.

        Args:
            *arguments: The name of a TensorFlow Datasets data set, the path of a folder, or x and
                y.
            **options: Options that `check_options` accepts.

        Returns:
            A `ClassDataset` or a `TaskDistribution`.
        """
        return pkgutil.resolve_name(self.loader)(*arguments, **options)

    def check_options(self, given: Iterable[str]) -> None:
        """Checks that the source takes these options.

        Args:
            given: iterable of str. Names of options of `tfmeta.data.load`.

        Raises:
            ValueError: If it does not take one of them.
        """
        unknown = sorted(set(given) - set(self.all_options))
        if not unknown:
            return
        taken = self.all_options or "none"
        message = f"{self.name!r} data takes the options {taken}; got {unknown}."
        if self.kind == "tfds" and set(unknown) <= set(FOLDER.options):
            raise ValueError(
                f"No such folder: {self.name} (looked in {Path.cwd()}). So the name is taken for a "
                f"TensorFlow Datasets data set, and {message}"
            )
        raise ValueError(message)


_SOURCES = "tfmeta.data.sources"

NAMED: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "omniglot",
            "named",
            f"{_SOURCES}.omniglot:omniglot",
            ("protocol", "rotations"),
            has_data_dir=True,
        ),
        Source("glyphs", "named", f"{_SOURCES}.glyphs:glyphs", has_data_dir=True),
        Source(
            "emoji",
            "named",
            f"{_SOURCES}.emoji:emoji",
            ("image_size", "manual_dir"),
            has_data_dir=True,
        ),
        Source(
            "icons",
            "named",
            f"{_SOURCES}.icons:icons",
            ("image_size", "manual_dir"),
            has_data_dir=True,
        ),
        Source("digits", "named", f"{_SOURCES}.digits:digits"),
        Source(
            "mini_imagenet", "named", f"{_SOURCES}.mini_imagenet:mini_imagenet", has_data_dir=True
        ),
        Source("cifar_fs", "named", f"{_SOURCES}.cifar_fs:cifar_fs", has_data_dir=True),
        Source(
            "embeddings",
            "named",
            f"{_SOURCES}.embeddings:embeddings",
            ("features",),
            has_data_dir=True,
        ),
        Source("sinusoid", "regression", f"{_SOURCES}.sinusoid:sinusoid", has_splits=False),
        Source("linear", "regression", f"{_SOURCES}.linear:linear", has_splits=False),
    )
}
FOLDER = Source("folder", "folder", f"{_SOURCES}.folder:folder", ("image_format", "on_error"))
TFDS = Source("tfds", "tfds", f"{_SOURCES}.tfds:tfds_dataset", ("image_size",), has_data_dir=True)
ARRAYS = Source("arrays", "arrays", f"{_SOURCES}.arrays:arrays", ("class_names",))


def resolve(
    name: str | os.PathLike[str] | tuple[Any, Any] | Mapping[str, Any],
) -> Source:
    """Finds the source that a name stands for, by the table in `tfmeta.data.load`.

    A folder never hides a data set with the same name. A name that is no data set and does not look
    like a path stands for a folder only if that folder exists.

    Args:
        name: str, path, pair of arrays or mapping. As given to `tfmeta.data.load`.

    Returns:
        A `Source`. Nothing is loaded, and a folder need not exist.

    Raises:
        ValueError: If it is none of these.

    Example:

    >>> resolve("omniglot").kind, resolve("cifar100").kind, resolve("./omniglot").kind
    ('named', 'tfds', 'folder')
    """
    if isinstance(name, tuple | list):
        if len(name) != 2:
            raise ValueError(f"Arrays must be a pair (x, y); got {len(name)} of them.")
        return ARRAYS
    if isinstance(name, Mapping):
        return ARRAYS
    if isinstance(name, os.PathLike):
        return dataclasses.replace(FOLDER, name=os.fspath(name))
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"Data must be {accepted_names()}; got {reprlib.repr(name)} of type "
            f"{type(name).__name__}."
        )
    if name in NAMED:
        return NAMED[name]
    kind = FOLDER if _is_folder(name) else TFDS
    return dataclasses.replace(kind, name=name)


def _is_folder(name: str) -> bool:
    is_path = name.startswith((".", "/", "~")) or name.endswith("/") or "\\" in name
    if is_path or re.match(r"[A-Za-z]:/", name):
        return True
    if "/" in name:
        return not _is_tfds_builder(name)
    return Path(name).is_dir() and not _is_tfds_builder(name)


def _is_tfds_builder(name: str) -> bool:
    """Returns whether TensorFlow Datasets knows this name, with or without a configuration."""
    builder, separator, _ = name.partition("/")
    # A namespace of TensorFlow Datasets, as in "huggingface:lhoestq/demo1".
    return (bool(separator) and ":" in builder) or builder in _tfds_builders()


def _tfds_builders() -> list[str]:
    import tensorflow_datasets as tfds

    names: list[str] = tfds.list_builders(with_community_datasets=False)
    return names


# === Messages ===


def accepted_names() -> str:
    """Lists the accepted names of data for an error message."""
    return (
        f"one of {', '.join(NAMED)}; the name of a TensorFlow Datasets data set, such as "
        '"cifar100" or "cifar10_corrupted/brightness_1"; the path of a folder with one sub-folder '
        'of images per class, such as "./my_images"; arrays (x, y); or a mapping from the names of '
        "classes to arrays of their examples"
    )


def no_such_data(name: str) -> str:
    """Says that there is no data set of a name.

    Args:
        name: str. The name that was looked for.

    Returns:
        A message with the nearest name and all accepted forms.
    """
    nearest = difflib.get_close_matches(name, [*NAMED, *_tfds_builders()], n=1, cutoff=0.75)
    suggestion = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"No data set named {name!r}.{suggestion} Expected {accepted_names()}."


def no_such_folder(path: str | os.PathLike[str]) -> str:
    """Says that there is no folder at a path.

    Args:
        path: str or path. What was looked for.

    Returns:
        A message with the directory in which it was looked for, and, for a name that could have
        been meant as a data set, with the accepted forms.
    """
    folder = Path(path).expanduser()
    message = f"No such folder: {path}"
    if not folder.is_absolute():
        message += f" (looked in {Path.cwd()})"
    could_be_data = isinstance(path, str) and re.fullmatch(r"\w+(/[\w.:]+)?/?", path)
    if not could_be_data:
        return f"{message}."
    return f"{message}. {no_such_data(str(path).partition('/')[0])}"
