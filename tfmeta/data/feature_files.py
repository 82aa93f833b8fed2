"""The files in which features are kept."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path

import numpy as np

from tfmeta.files import replacing


def folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    """Returns the folder of the files.

    Args:
        cache_dir: str, path or None. The folder; None for that of the user.
    """
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    return home / "tfmeta" / "embeddings"


def read(file: Path, n_examples: int) -> np.ndarray | None:
    """Reads a file of features.

    Args:
        file: Path. The file.
        n_examples: int. How many examples it must be of.

    Returns:
        float32 `[n_examples, *features]`, or None if there is no such file or it is broken.

    Warns:
        UserWarning: If it is broken.
    """
    try:
        # Zip files have check sums, which are compared when an array is read.
        with np.load(file, allow_pickle=False) as arrays:
            features: np.ndarray = arrays["features"]
    except FileNotFoundError:
        return None
    # NumPy takes a file that begins otherwise for a pickle, or finds no arrays in it.
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
    else:
        if features.dtype == np.float32 and features.shape[:1] == (n_examples,):
            return features
        reason = f"it holds {features.dtype} {features.shape}"
    warn(f"The file of features {file} is broken, so they are computed again: {reason}")
    return None


def write(file: Path, features: np.ndarray) -> None:
    """Writes a file of features, replacing it as a whole.

    Args:
        file: Path. The file. Missing folders are made.
        features: float32 `[N, *features]`.
    """
    with replacing(file) as temporary:
        np.savez(temporary, features=features)


def warn(text: str) -> None:
    """Warns the caller of `tfmeta.data.embed`.

    Args:
        text: str. The warning.
    """
    warnings.warn(text, stacklevel=4)
