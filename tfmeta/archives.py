"""Opens `.keras` files, which are ZIP archives, within bounds on what they expand to."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

CONFIG = "config.json"
MOST_CONFIG_BYTES = 16 << 20


def check_archive(file: Path) -> None:
    """Checks that a `.keras` file does not expand to much more than its size.

    Args:
        file: Path. The file.

    Raises:
        ValueError: If it does, or it is no ZIP archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"it is no ZIP archive: {error}") from error
    # Keras stores weights uncompressed, and they hardly compress.
    most = 4 * file.stat().st_size + (1 << 20)
    total = 0
    for member in members:
        total += member.file_size
        is_weights = member.filename.endswith(".h5")
        if not is_weights and member.file_size > MOST_CONFIG_BYTES:
            raise ValueError(
                f"its {member.filename} expands to {member.file_size:,} bytes; at most "
                f"{MOST_CONFIG_BYTES:,} are read."
            )
    if total > most + MOST_CONFIG_BYTES:
        raise ValueError(f"it expands to {total:,} bytes from {file.stat().st_size:,}.")


def load_model(file: Path, name: str) -> keras.Model:
    """Loads the model in a `.keras` file, without executing code that the file holds.

    Args:
        file: Path. The file.
        name: str. What the user calls the file, for errors.

    Returns:
        keras.Model. The model, not compiled.

    Raises:
        ValueError: If the file is no model's, or no safe one.
    """
    import keras

    try:
        check_archive(file)
        return keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:
        # Keras raises many types of errors for files that are no models, or no safe ones.
        text = " ".join(str(error).split()).replace(str(file), name)
        raise ValueError(f"{name} does not load: {text}") from error


def read_config(file: Path) -> dict[str, Any]:
    """Returns the configuration in a `.keras` file, without Keras.

    Args:
        file: Path. The file.

    Raises:
        ValueError: If the file is broken, or no model's.
    """
    check_archive(file)
    try:
        with zipfile.ZipFile(file) as archive:
            content = json.loads(archive.read(CONFIG))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"it has no {CONFIG} that can be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"its {CONFIG} is no model's.")
    return content
