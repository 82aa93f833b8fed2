"""Where servables and their versions lie on disk."""

from __future__ import annotations

import os
from pathlib import Path

from tfmeta.preset_files import PRESET, SERVABLE, check
from tfmeta.versions import versions


def newest_version(folder: str | os.PathLike[str]) -> Path:
    """Returns the folder of a servable's newest version. A version's folder is returned as it is.

    Args:
        folder: str or path. A servable's folder, or that of one of its versions.

    Raises:
        ValueError: If the folder does not exist, or holds the folders of several servables.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise ValueError(
            f"{folder} {problem}: give the folder of a servable or of one of its versions."
        )
    if numbers := versions(folder):
        return folder / str(numbers[-1])
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and versions(path))
    if inside:
        raise ValueError(
            f"{folder} is not a servable, but contains servables: give "
            f"{' or '.join(map(str, inside))}."
        )
    return folder


def servable_of(preset_folder: str | os.PathLike[str]) -> Path:
    """Returns the folder of the newest version of a preset's servable, a SavedModel.

    Args:
        preset_folder: str or path. The preset's folder.

    Raises:
        ValueError: If the preset has no servable, or a file of it was altered.

    Example:

    >>> import tensorflow as tf
    >>> import tfmeta
    >>> folder = tfmeta.presets.find("maml_sinusoid")
    >>> loaded = tf.saved_model.load(str(tfmeta.serving.servable_of(folder)))
    >>> sorted(loaded.signatures)
    ['adapt', 'adapt_and_predict', 'predict', 'serving_default']
    """
    folder = Path(preset_folder) / SERVABLE
    if not versions(folder):
        raise ValueError(
            f"The preset in {preset_folder} has no servable: export one with `tfmeta export`."
        )
    if (Path(preset_folder) / PRESET).is_file():
        check(Path(preset_folder), part=SERVABLE)
    return newest_version(folder)
