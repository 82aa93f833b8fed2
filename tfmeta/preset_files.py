"""Writes and reads a preset's folder, and refuses altered files.

    preset.json      the recipe, the preparation of examples, and the digests of all files
    learner.keras    the learner, not compiled, as Keras saves it
    evaluation.json  optional: the results of the test
    servable/        optional: the learner as a servable of TensorFlow Serving

`preset.json` holds a digest of itself, too. `python -m tfmeta.preset_files FOLDER…` writes the
digests of files that were added to presets.

This module knows no learner. It imports TensorFlow and Keras only in the functions that need them,
so that listing presets does not wait for these imports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tfmeta.about import About
from tfmeta.archives import load_model
from tfmeta.files import json_text, replacing, sha256_of, write_text
from tfmeta.version import __version__
from tfmeta.versions import locked, new_folders

if TYPE_CHECKING:
    import keras

    from tfmeta.data.images import ImageFormat

PRESET = "preset.json"
LEARNER = "learner.keras"
SERVABLE = "servable"

# The layout of a preset's folder. A later version of tfmeta may write a larger number. Those of the
# format 1 have a digest of the learner alone.
FORMAT = 2
MOST_BYTES = {PRESET: 1_000_000, LEARNER: 2 << 30}


@dataclasses.dataclass(frozen=True)
class Preset(About):
    """The content of `preset.json`.

    Attributes:
        sha256: str. Digest of `learner.keras`, in hexadecimal.
        tfmeta: str. The version of tfmeta that wrote the preset.
        files: dict. Digests of the other files, by their paths in the folder. Defaults to none.
        format: int. The layout of the folder. Defaults to the current one.
    """

    sha256: str
    tfmeta: str
    files: dict[str, str] = dataclasses.field(default_factory=dict)
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
        ValueError: If the folder holds a preset already, or the learner is not built or has
            weights that are not finite.
    """
    import keras

    folder = Path(folder).expanduser()
    if not learner.built:
        raise ValueError("The learner has no weights yet: train it, or call it once, to save it.")
    _check_finite(learner, "The learner")
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
                sha256=sha256_of(weights),
                example_shape=None if shape is None else list(shape),
                image_format=image_format,
                recipe=recipe,
                tfmeta=__version__,
            )
            description.write_text(signed(dataclasses.asdict(preset)), encoding="utf-8")


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


def record_files(folder: Path) -> None:
    """Writes the digests of a preset's other files into its `preset.json`, after they were added.

    Args:
        folder: Path. The preset's folder.

    Raises:
        ValueError: If `preset.json` is broken.
    """
    content = {**read_values(folder), "format": FORMAT, "files": {}}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (PRESET, LEARNER) and not path.name.startswith("."):
            content["files"][name] = sha256_of(path)
    write_text(folder / PRESET, signed(content))


def signed(content: Mapping[str, Any]) -> str:
    """Returns the text of a `preset.json`, with a digest of all that it says.

    Args:
        content: mapping. The content without the digest.
    """
    digest = hashlib.sha256(json_text(content).encode()).hexdigest()
    return json_text({**content, "digest": digest})


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
    if file.stat().st_size > MOST_BYTES[PRESET]:
        raise ValueError(
            f"{file} is no {PRESET} of tfmeta: it has over {MOST_BYTES[PRESET]} bytes."
        )
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
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
    if content["format"] > 1 and text != signed({k: content[k] for k in content if k != "digest"}):
        raise ValueError(
            f"{file} was altered: it has another content than its own digest says. Copy or "
            "download the folder again."
        )
    content.pop("digest", None)
    if content["format"] == 1:
        content.setdefault("files", {})
    expected = {field.name for field in dataclasses.fields(Preset)}
    if content.keys() != expected:
        raise ValueError(f"{file} must have the keys {sorted(expected)}; got {sorted(content)}.")
    if not (isinstance(content["files"], dict) and all(map(_is_inside, content["files"]))):
        raise ValueError(f"{file}: files must have the digests of files in its folder.")
    shape = content["example_shape"]
    if shape is not None and not (
        isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    ):
        raise ValueError(f"{file}: example_shape must be a list of integers > 0; got {shape!r}.")
    if not isinstance(content["recipe"], dict | None):
        raise ValueError(f"{file}: recipe must be an object or null; got {content['recipe']!r}.")
    return content


def _is_inside(name: str) -> bool:
    """Returns whether a name is that of a file in the preset's folder."""
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", name))


def load(folder: Path, name: str | None = None) -> keras.Model:
    """Loads the model of a preset's folder, in Keras's safe mode.

    Args:
        folder: Path. The preset's folder.
        name: str. What the user calls it, such as an address, for errors. Defaults to None, the
            folder.

    Returns:
        keras.Model. The model, not compiled. The caller checks that it is a learner.

    Raises:
        ValueError: If a file is missing, truncated or altered, Keras does not load the learner, or
            a weight is not finite.
        OSError: If a file cannot be read.
    """
    with naming(folder, name or str(folder)):
        return _load(folder)


@contextlib.contextmanager
def naming(folder: Path, name: str) -> Iterator[None]:
    """Writes what the user calls a folder into errors that name the folder.

    Args:
        folder: Path. The folder, for example one in the cache.
        name: str. What the user calls it, for example the address that it was downloaded from.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder), name)) from error


def _load(folder: Path) -> keras.Model:
    file = folder / LEARNER
    # Keras loads only from a path. Only this user can open the temporary folder, so nobody can
    # change the file after the check.
    with tempfile.TemporaryDirectory() as private:
        copied = Path(private) / LEARNER
        check(folder, copied)
        model = load_model(copied, str(file))
    _check_finite(model, str(file))
    return model


def check(folder: Path, copy: Path | None = None, part: str | None = None) -> None:
    """Checks the files of a preset against the digests in `preset.json`.

    Args:
        folder: Path. The preset's folder. A download has no more than the learner.
        copy: Path. A file to which to copy the learner, as it was checked. Defaults to None.
        part: str. The file or folder to check alone. Defaults to None, all.

    Raises:
        ValueError: If `learner.keras` is missing, a file is truncated or altered, or `preset.json`
            is broken.
        OSError: If a file cannot be read.
    """
    preset = read(folder)
    if part is None and not (folder / LEARNER).is_file():
        raise ValueError(f"{folder} lacks its {LEARNER}: copy or download it again.")
    for name, expected in {LEARNER: preset.sha256, **preset.files}.items():
        file = folder / name
        if not file.is_file() or (part and part not in (name, name.partition("/")[0])):
            continue
        if (digest := sha256_of(file, copy if name == LEARNER else None)) != expected:
            raise ValueError(
                f"{file} was truncated or altered: its SHA-256 digest is {digest}, but {PRESET} "
                f"says {expected}. Copy or download the folder again."
            )


def _check_finite(model: keras.Model, name: str) -> None:
    import numpy as np

    for weight in model.weights:
        value = np.asarray(weight)
        if value.dtype.kind in "fV" and not np.isfinite(value.astype("float32")).all():
            raise ValueError(f"{name} has weights that are not finite, in {weight.path}.")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        record_files(Path(argument))
