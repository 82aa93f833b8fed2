"""Files of embeddings with the names of their classes: our own, and those of LEO's authors."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.numpy_pickle import read_numpy_pickle
from tfmeta.files import replacing

AT_ONCE = 1024


def write_embeddings(source: ClassDataset, file: str | os.PathLike[str]) -> None:
    """Writes a data set of vectors to a file, for `tfmeta.data.load("embeddings", …)`.

    The file is NumPy's: `embeddings`, float32 `[N, d]`, and `class_names`, the class of each.

    Args:
        source: ClassDataset. The vectors, such as `tfmeta.data.embed` returns.
        file: str or path. The file, `train_embeddings.npz`, `val_embeddings.npz` or
            `test_embeddings.npz` in a folder of its own. Missing folders are made.

    Raises:
        ValueError: If the examples are no vectors, or the name does not end with `.npz`.

    Example:

    >>> import tempfile
    >>> import tfmeta
    >>> vectors = tfmeta.data.load((np.eye(4, dtype="float32"), [0, 0, 1, 1]))
    >>> file = Path(tempfile.mkdtemp(), "test_embeddings.npz")
    >>> write_embeddings(vectors, file)
    >>> [array.shape for array in read_embeddings(file)]
    [(4, 4), (4,)]
    """
    path = Path(file)
    if len(source.example_shape) != 1:
        raise ValueError(
            f"Embeddings are vectors; got examples of the shape {source.example_shape}: embed them "
            "with tfmeta.data.embed first."
        )
    if path.suffix != ".npz":
        raise ValueError(f"The name of a file of embeddings must end with .npz; got {path.name!r}.")
    rows = np.concatenate(source.rows)
    parts = [
        source.fetch(tf.constant(rows[i : i + AT_ONCE])).numpy()
        for i in range(0, len(rows), AT_ONCE)
    ]
    names = np.repeat(source.class_names, [len(of_class) for of_class in source.rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        np.savez(temporary, embeddings=np.concatenate(parts), class_names=names)


def read_embeddings(file: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reads a file of embeddings.

    Args:
        file: str or path. What `write_embeddings` wrote; or a pickle of LEO's authors, a dictionary
            of `keys`, such as `"7-n01532829-n0153282900000006.jpg"`, and `embeddings` `[N, d]`.

    Returns:
        The embeddings, `[N, d]`, and the names of their classes, text `[N]`.

    Raises:
        ValueError: If the file is broken or holds anything else.
        OSError: If it cannot be read.
    """
    path = Path(file)
    if path.suffix == ".pkl":
        arrays = read_numpy_pickle(path)
        wanted = {"embeddings", "keys"}
    else:
        try:
            with np.load(path, allow_pickle=False) as opened:
                arrays = {name: opened[name] for name in opened.files}
        except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path} is no file of embeddings: {reason}") from error
        wanted = {"embeddings", "class_names"}
    if not wanted <= arrays.keys():
        raise ValueError(f"{path} must hold the arrays {sorted(wanted)}; it has {sorted(arrays)}.")
    embeddings = arrays["embeddings"]
    names = arrays["class_names"] if "class_names" in arrays else _classes(path, arrays["keys"])
    is_right = embeddings.ndim == 2 and embeddings.dtype.kind == "f" and names.dtype.kind == "U"
    if not is_right or names.shape != embeddings.shape[:1] or not len(names):
        raise ValueError(
            f"{path} must hold float embeddings [N, d] and a text for each; got embeddings "
            f"{embeddings.dtype} {embeddings.shape} and texts {names.dtype} {names.shape}."
        )
    return embeddings, names


def _classes(path: Path, keys: np.ndarray) -> np.ndarray:
    """Returns the classes in the keys of LEO's authors: number, class and file, by hyphens."""
    parts = [str(key).split("-") for key in keys.ravel()]
    wrong = [key for key, part in zip(keys.ravel(), parts, strict=True) if len(part) != 3]
    if wrong:
        raise ValueError(
            f"{path}: each key must be a number, a class and a file, joined by hyphens; got "
            f"{wrong[0]!r}."
        )
    return np.array([part[1] for part in parts])
