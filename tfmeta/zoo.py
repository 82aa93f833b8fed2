"""The shipped presets, and where the preset of a name, folder or address is."""

from __future__ import annotations

import os
from pathlib import Path

from tfmeta.downloads import download
from tfmeta.preset_files import PRESET
from tfmeta.registry import hint

PACKAGE = Path(__file__).parent

# An installed wheel has the presets inside; in a checkout they are beside the package.
FOLDERS = (PACKAGE / "saved_models", PACKAGE.parent / "saved_models")


def list_presets() -> list[str]:
    """Lists the names that `from_preset` knows. TensorFlow is not imported.

    Raises:
        RuntimeError: If tfmeta was installed without its presets.

    Example:

    >>> [name for name in list_presets() if "sinusoid" in name]
    ['maml_sinusoid', 'meta_sgd_sinusoid']
    """
    folder = _zoo()
    if folder is None:
        raise RuntimeError(
            f"tfmeta's presets are missing: {' and '.join(map(str, FOLDERS))} do not exist. "
            "Install tfmeta again."
        )
    return _names(folder)


def find(preset: str | os.PathLike[str], refresh: bool = False) -> Path:
    """Finds the folder of a preset; downloads it if it is an address.

    Args:
        preset: A name, a folder or an address; see `tfmeta.from_preset`.
        refresh: Whether to download again what the cache has. Defaults to False.

    Returns:
        The folder. Its files are not checked yet.

    Raises:
        ValueError: If there is no such preset, or it cannot be downloaded.
    """
    text = os.fspath(preset)
    if not text:
        raise ValueError("Which preset? Give a name, a folder or an address; got none.")
    if "://" in text:
        return download(text, refresh)
    zoo = _zoo()
    names = [] if zoo is None else _names(zoo)
    if zoo is not None and text in names:
        return zoo / text
    try:
        folder = Path(text).expanduser()
        exists = (folder / PRESET).is_file()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{text!r} is no preset's name, nor a folder: {error}.") from error
    if not exists:
        raise ValueError(
            f"There is no preset {text!r}, nor a folder of that path with a {PRESET}; "
            f"{hint(text, names)}"
        )
    return folder


def _zoo() -> Path | None:
    return next((folder for folder in FOLDERS if folder.is_dir()), None)


def _names(zoo: Path) -> list[str]:
    return sorted(path.parent.name for path in zoo.glob(f"*/{PRESET}"))
