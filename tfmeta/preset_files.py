"""Writes and reads a preset's folder, and refuses altered files.

    preset.json      the recipe, the preparation of examples, and the digest of the learner
    learner.keras    the learner, not compiled, as Keras saves it
    servable/        optional: the learner as a servable of TensorFlow Serving

This module knows no learner. It imports TensorFlow and Keras only in the functions that need them,
so that listing presets does not wait for these imports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmeta.about import About
from tfmeta.files import json_text, replacing
from tfmeta.version import __version__
from tfmeta.versions import locked, new_folders

if TYPE_CHECKING:
    import keras

    from tfmeta.data.images import ImageFormat

PRESET = "preset.json"
LEARNER = "learner.keras"
SERVABLE = "servable"

# The layout of a preset's folder. A later version of tfmeta may write a larger number.
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Preset(About):
    """The content of `preset.json`.

    Attributes:
        sha256: str. Digest of `learner.keras`, in hexadecimal.
        tfmeta: str. The version of tfmeta that wrote the preset.
        format: int. The layout of the folder. Defaults to the current one.
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
        learner: `MetaLearner`. The learner, built.
        folder: str or path. The folder to write; made if it does not exist. Other files in it stay.
        image_format: `ImageFormat` or None. How image files become examples. Defaults to None: the
            examples are not images.
        recipe: dict or None. The recipe that the learner was trained by. Defaults to None.

    Raises:
        ValueError: If the folder holds a preset already, or the learner is not built.
    """
    import keras

    folder = Path(folder).expanduser()
    if not learner.built:
        raise ValueError("The learner has no weights yet: train it, or call it once, to save it.")
    with new_folders(folder, keep_file=False), locked(folder, keep_file=False):
        if (folder / PRESET).exists():
            raise ValueError(
                f"{folder} holds a preset already: remove it, or choose another folder."
            )
        # PRESET is replaced last: a folder without it is no preset.
        with (
            _removed_on_failure(folder / LEARNER),
            replacing(folder / PRESET) as description,
            replacing(folder / LEARNER) as weights,
        ):
            learner.save(weights)
            if learner.compiled:
                # Drop the optimizer, whose state may be twice as large as the weights.
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


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    """Removes a file that was not there before, if an exception passes."""
    existed = path.exists()
    try:
        yield
    except BaseException:
        if not existed:
            path.unlink(missing_ok=True)
        raise


# === Reading ===


def read(folder: Path) -> Preset:
    """Reads the `preset.json` of a folder.

    Args:
        folder: Path. The preset's folder.

    Returns:
        `Preset`. The content.

    Raises:
        ValueError: If the file is broken, is not a preset's, or was written by a later version.
        OSError: If the file cannot be read.
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

    Args:
        folder: Path. The preset's folder.

    Returns:
        dict. The values by the attributes of `Preset`; `image_format` is a dictionary, not checked.

    Raises:
        ValueError: If the file is broken, is not a preset's, or was written by a later version.
        OSError: If the file cannot be read.
    """
    file = folder / PRESET
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is broken, or no {PRESET} of tfmeta: {error}.") from error
    # isinstance would accept True as an integer.
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
        folder: Path. The preset's folder.

    Returns:
        keras.Model. The model, not compiled. The caller checks that it is a learner.

    Raises:
        ValueError: If `learner.keras` is missing, truncated or altered, or Keras does not load it.
        OSError: If a file cannot be read.
    """
    import keras

    file = folder / LEARNER
    content = checked_bytes(folder)
    # Keras loads only from a path. Only this user can open the temporary folder, so nobody can
    # change the file after the check.
    with tempfile.TemporaryDirectory() as private:
        copy = Path(private) / LEARNER
        copy.write_bytes(content)
        try:
            return keras.models.load_model(copy, compile=False, safe_mode=True)
        except Exception as error:
            # Keras raises many types of errors for files that are no models, or no safe ones.
            text = " ".join(str(error).split()).replace(str(copy), str(file))
            raise ValueError(f"{file} does not load: {text}") from error


def checked_bytes(folder: Path) -> bytes:
    """Reads `learner.keras`, and checks it against the digest in `preset.json`.

    Args:
        folder: Path. The preset's folder.

    Returns:
        bytes. The content of `learner.keras`.

    Raises:
        ValueError: If `learner.keras` is missing, truncated or altered, or `preset.json` is broken.
        OSError: If a file cannot be read.
    """
    expected = read(folder).sha256
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
