"""Meta-trained learners by name, from a folder, or from an address.

A preset is a folder:

    preset.json      what it is, how examples are prepared, and the digest of the weights
    learner.keras    the learner, not compiled, as Keras saves it
    servable/        optional: the learner as a servable of TensorFlow Serving
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import tfmeta
from tfmeta.data import ImageFormat
from tfmeta.files import replacing, write_json
from tfmeta.learners import MetaLearner
from tfmeta.registry import hint
from tfmeta.serving.publishing import locked, publish, versions

PRESET = "preset.json"
LEARNER = "learner.keras"
SERVABLE = "servable"

# The layout of a preset's folder. One that is larger was written by a later tfmeta.
FORMAT = 1

# In a checkout a link to `saved_models/`; an installed tfmeta has the folder itself.
ZOO = Path(__file__).parent / "saved_models"


@dataclasses.dataclass(frozen=True)
class About:
    """What is known about a learner besides itself.

    Attributes:
        example_shape: Shape of one example; None if the network does not tell it.
        image_format: How image files become examples; None if they do not.
        recipe: The recipe that the learner was trained by, as a dictionary; None if there was none.
    """

    example_shape: list[int] | None
    image_format: ImageFormat | None
    recipe: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Preset(About):
    """What `preset.json` says.

    Attributes:
        sha256: Digest of `learner.keras`, in hexadecimal.
        tfmeta: The version that wrote it.
        format: The layout of the folder.
    """

    sha256: str
    tfmeta: str
    format: int = FORMAT


def list_presets() -> list[str]:
    """The names that `from_preset` knows.

    Example:

    >>> [name for name in list_presets() if "sinusoid" in name]
    ['maml_sinusoid', 'meta_sgd_sinusoid']
    """
    return sorted(path.parent.name for path in ZOO.glob(f"*/{PRESET}"))


def from_preset(preset: str | os.PathLike[str]) -> MetaLearner:
    """A meta-trained learner.

    Nothing of a preset is executed: the file is checked against its SHA-256 digest, and loaded in
    Keras's safe mode.

    Args:
        preset: A name (see `list_presets`); a folder that `save_to_preset` wrote; or the address of
            such a folder: `https://…`, `gs://bucket/…`, or `hf://owner/repository/…` on the Hugging
            Face Hub (needs the extra `tfmeta[hf]`). What was downloaded is kept in Keras's
            cache, `$KERAS_HOME` or `~/.keras`.

    Returns:
        The learner, not compiled.

    Raises:
        ValueError: If there is no such preset, or it is truncated, altered, of another kind, or of
            a later version of tfmeta.

    Example:

    >>> import numpy as np
    >>> import tfmeta
    >>> learner = tfmeta.from_preset("maml_sinusoid")
    >>> x = np.linspace(-5, 5, 10, dtype="float32")[:, None]
    >>> adapted = learner.adapt(x, np.sin(x))
    >>> adapted.predict(np.array([[0.5]], "float32"), verbose=0).shape
    (1, 1)
    """
    return load(find(preset))


def save_to_preset(
    learner: MetaLearner,
    folder: str | os.PathLike[str],
    image_format: ImageFormat | None = None,
    recipe: dict[str, Any] | None = None,
) -> None:
    """Writes a learner as a preset. See `MetaLearner.save_to_preset`.

    Args:
        learner: The learner, built.
        folder: The folder to write.
        image_format: How image files become examples.
        recipe: The recipe that it was trained by, as a dictionary.

    Raises:
        ValueError: If the folder holds a preset already, or the learner is not built.
    """
    folder = Path(folder).expanduser()
    if (folder / PRESET).exists():
        raise ValueError(f"{folder} holds a preset already: remove it, or choose another folder.")
    if not learner.built:
        raise ValueError("The learner has no weights yet: train it, or call it once, to save it.")
    with replacing(folder / LEARNER) as temporary:
        learner.save(temporary)
        if learner.compiled:
            # Without the optimizer, whose memory is twice as large as the weights.
            keras.models.load_model(temporary, compile=False).save(temporary)
        digest = _sha256(temporary)
    shape = learner.example_shape
    # Last: a folder without it is no preset.
    write_json(
        folder / PRESET,
        dataclasses.asdict(
            Preset(
                sha256=digest,
                example_shape=None if shape is None else list(shape),
                image_format=image_format,
                recipe=recipe,
                tfmeta=tfmeta.__version__,
            )
        ),
    )


# === Folders ===


def find(preset: str | os.PathLike[str]) -> Path:
    """The folder of a preset, which is downloaded where it is an address.

    Raises:
        ValueError: If there is none, or it cannot be downloaded.
    """
    text = os.fspath(preset)
    if not text:
        raise ValueError("Which preset? Give a name, a folder or an address; got none.")
    if "://" in text:
        return _downloaded(text)
    names = list_presets()
    if text in names:
        return ZOO / text
    try:
        folder = Path(text).expanduser()
        is_there = (folder / PRESET).is_file()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{text!r} is no preset's name, nor a folder: {error}.") from error
    if not is_there:
        raise ValueError(
            f"There is no preset {text!r}, nor a folder of that path with a {PRESET}; "
            f"{hint(text, names)}"
        )
    return folder


def read(folder: Path) -> Preset:
    """What the `preset.json` of a folder says.

    Raises:
        ValueError: If it is broken, something else, or of a later version.
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
            f"tfmeta {tfmeta.__version__}, which reads up to {FORMAT}: upgrade it."
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
    image_format = content["image_format"]
    if image_format is not None:
        try:
            content["image_format"] = ImageFormat(**image_format)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from error
    return Preset(**content)


def load(folder: Path) -> MetaLearner:
    """The learner of a preset's folder. Raises a ValueError if it is not what was written."""
    preset, file = read(folder), folder / LEARNER
    if not file.is_file():
        raise ValueError(f"{folder} lacks its {LEARNER}: copy or download it again.")
    digest = _sha256(file)
    if digest != preset.sha256:
        raise ValueError(
            f"{file} was truncated or altered: its SHA-256 digest is {digest}, but {PRESET} says "
            f"{preset.sha256}. Copy or download the folder again."
        )
    try:
        learner = keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:
        # Keras raises all kinds for a file that is not, or not safely, a model.
        raise ValueError(f"{file} does not load: {' '.join(str(error).split())}") from error
    if not isinstance(learner, MetaLearner):
        raise ValueError(f"{file} must hold a learner of tfmeta; it has a {type(learner)}.")
    return learner


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# === Downloads ===


def _downloaded(address: str) -> Path:
    """The folder of the cache that holds what is at this address."""
    scheme, _, rest = address.rstrip("/").partition("://")
    fetch = FETCH.get(scheme)
    if fetch is None:
        raise ValueError(
            f"{address}: presets come from {', '.join(f'{name}://' for name in FETCH)}, from a "
            f"folder, or by name; got {scheme}://."
        )
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    cache = home / "tfmeta" / hashlib.sha256(f"{scheme}://{rest}".encode()).hexdigest()

    def whole() -> Path | None:
        for version in reversed(versions(cache)):
            # What was altered here is downloaded again.
            with contextlib.suppress(ValueError, OSError):
                if _is_whole(cache / str(version)):
                    return cache / str(version)
        return None

    def write(folder: Path) -> None:
        for name in (PRESET, LEARNER):
            try:
                fetch(rest, name, folder)
            except Exception as error:
                # Each library has its own.
                raise ValueError(
                    f"{address}/{name} could not be downloaded: {' '.join(str(error).split())}"
                ) from error
        if not _is_whole(folder):
            raise ValueError(
                f"{address}: the SHA-256 digest of {LEARNER} is not the one that {PRESET} says: it "
                "was altered there, or on the way."
            )

    folder = whole()
    if folder is None:
        # One downloads for all: each further version would push out the one that another reads.
        with locked(cache / "download"):
            folder = whole() or publish(cache, write, keep=2)
    return folder


def _is_whole(folder: Path) -> bool:
    return _sha256(folder / LEARNER) == read(folder).sha256


def _from_https(rest: str, name: str, folder: Path) -> None:
    keras.utils.get_file(name, f"https://{rest}/{name}", cache_subdir="", cache_dir=str(folder))


def _from_google_storage(rest: str, name: str, folder: Path) -> None:
    tf.io.gfile.copy(f"gs://{rest}/{name}", str(folder / name))


def _from_hugging_face(rest: str, name: str, folder: Path) -> None:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "hf:// needs the package huggingface_hub: pip install 'tfmeta[hf]'."
        ) from error
    owner, _, rest = rest.partition("/")
    repository, *path = rest.split("/")
    if not (owner and repository):
        raise ValueError("an address on the Hub is hf://owner/repository or a folder in that.")
    # Its own cache has it, in case it is asked for again.
    file = huggingface_hub.hf_hub_download(f"{owner}/{repository}", "/".join([*path, name]))
    shutil.copy(file, folder / name)


FETCH: dict[str, Callable[[str, str, Path], None]] = {
    "https": _from_https,
    "gs": _from_google_storage,
    "hf": _from_hugging_face,
}
