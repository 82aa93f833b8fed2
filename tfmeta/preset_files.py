"""A preset's folder: writing it, reading it, and refusing what was altered.

    preset.json      what it is, how examples are prepared, and the digest of the weights
    learner.keras    the learner, not compiled, as Keras saves it
    servable/        optional: the learner as a servable of TensorFlow Serving

This module knows no learner. It imports TensorFlow and Keras only in the functions that need them,
so that presets can be listed without waiting for them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmeta.files import json_text, replacing
from tfmeta.version import __version__
from tfmeta.versions import locked, new_folders

if TYPE_CHECKING:
    import keras

    from tfmeta.data.images import ImageFormat

PRESET = "preset.json"
LEARNER = "learner.keras"
SERVABLE = "servable"

# The layout of a preset's folder. A larger number was written by a later tfmeta.
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class About:
    """What is known about a learner besides the learner itself.

    Attributes:
        example_shape: Shape of one example; None if the network does not tell it.
        image_format: How image files become examples; None if the examples are not images.
        recipe: The recipe that the learner was trained by, as a dictionary; None if there was none.
    """

    example_shape: list[int] | None
    image_format: ImageFormat | None
    recipe: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Preset(About):
    """The content of `preset.json`.

    Attributes:
        sha256: Digest of `learner.keras`, in hexadecimal.
        tfmeta: The version that wrote it.
        format: The layout of the folder.
    """

    sha256: str
    tfmeta: str
    format: int = FORMAT


# === Writing ===


def save(
    learner: keras.Model,
    folder: str | os.PathLike[str],
    image_format: ImageFormat | None = None,
    recipe: dict[str, Any] | None = None,
) -> None:
    """Writes a learner, without its optimizer, as a preset.

    The folder is locked meanwhile. If anything fails, neither of the two files is there.

    Args:
        learner: The learner, built.
        folder: The folder to write; made if it does not exist. Other files in it stay.
        image_format: How image files become examples. Defaults to None: they do not.
        recipe: The recipe that the learner was trained by, as a dictionary. Defaults to None.

    Raises:
        ValueError: If the folder holds a preset already, or the learner is not built.
    """
    import keras

    folder = Path(folder).expanduser()
    if not learner.built:
        raise ValueError("The learner has no weights yet: train it, or call it once, to save it.")
    with new_folders(folder), locked(folder, keep_file=False):
        if (folder / PRESET).exists():
            raise ValueError(
                f"{folder} holds a preset already: remove it, or choose another folder."
            )
        # They take their places in reverse order: a folder without PRESET is no preset.
        with replacing(folder / PRESET) as description, replacing(folder / LEARNER) as weights:
            learner.save(weights)
            if learner.compiled:
                # The optimizer would be twice as large as the weights.
                keras.models.load_model(weights, compile=False).save(weights)
            shape = learner.example_shape
            preset = Preset(
                sha256=_sha256(weights.read_bytes()),
                example_shape=None if shape is None else list(shape),
                image_format=image_format,
                recipe=recipe,
                tfmeta=__version__,
            )
            text = json_text(dataclasses.asdict(preset))
            description.write_text(text, encoding="utf-8")


# === Reading ===


def read(folder: Path) -> Preset:
    """Reads the `preset.json` of a folder.

    Raises:
        ValueError: If it is broken, something else, or was written by a later version.
    """
    content = read_values(folder)
    if content["image_format"] is not None:
        from tfmeta.data.images import ImageFormat

        try:
            content["image_format"] = ImageFormat(**content["image_format"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder / PRESET}: {error}") from error
    return Preset(**content)


def read_values(folder: Path) -> dict[str, Any]:
    """Reads the `preset.json` of a folder as plain values, without importing TensorFlow.

    Returns:
        The values by the attributes of `Preset`; `image_format` as a dictionary, not checked.

    Raises:
        ValueError: As `read` does.
    """
    file = folder / PRESET
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is broken, or no {PRESET} of tfmeta: {error}.") from error
    # Not isinstance: True is an int, too.
    if (
        not isinstance(content, dict)
        or type(content.get("format")) is not int
        or content["format"] < 1
    ):
        raise ValueError(f"{file} is no {PRESET} of tfmeta: it must say which format it has.")
    if content["format"] > FORMAT:
        raise ValueError(
            f"{file} has format {content['format']}, from tfmeta {content.get('tfmeta')}; this is "
            f"tfmeta {__version__}, which reads up to {FORMAT}: upgrade it."
        )
    expected = {field.name for field in dataclasses.fields(Preset)}
    if content.keys() != expected:
        raise ValueError(f"{file} must have the keys {sorted(expected)}; got {sorted(content)}.")
    shape = content["example_shape"]
    if shape is not None and not (
        isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    ):
        raise ValueError(f"{file}: example_shape must be a list of integers > 0; got {shape!r}.")
    if not isinstance(content["recipe"], dict | None):
        raise ValueError(f"{file}: recipe must be an object or null; got {content['recipe']!r}.")
    return content


def load(folder: Path) -> keras.Model:
    """Loads the model of a preset's folder, in Keras's safe mode.

    Args:
        folder: The folder.

    Returns:
        The model, not compiled. Whoever calls this checks that it is a learner.

    Raises:
        ValueError: If a file is missing, truncated or altered, or Keras does not load it.
    """
    import keras

    file = folder / LEARNER
    content = checked_bytes(folder)
    # Keras loads from a path only. In a folder that only this user can open, the file is still the
    # one that was checked.
    with tempfile.TemporaryDirectory() as private:
        copy = Path(private) / LEARNER
        copy.write_bytes(content)
        try:
            return keras.models.load_model(copy, compile=False, safe_mode=True)
        except Exception as error:
            # Keras raises all kinds for a file that is not, or not safely, a model.
            text = " ".join(str(error).split()).replace(str(copy), str(file))
            raise ValueError(f"{file} does not load: {text}") from error


def checked_bytes(folder: Path) -> bytes:
    """Reads `learner.keras`, and checks it against the digest in `preset.json`.

    Raises:
        ValueError: If one of the two is missing, truncated or altered.
    """
    expected = read_values(folder)["sha256"]
    file = folder / LEARNER
    if not file.is_file():
        raise ValueError(f"{folder} lacks its {LEARNER}: copy or download it again.")
    content = file.read_bytes()
    digest = _sha256(content)
    if digest != expected:
        raise ValueError(
            f"{file} was truncated or altered: its SHA-256 digest is {digest}, but {PRESET} says "
            f"{expected}. Copy or download the folder again."
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
