"""Presets from addresses, kept in a cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from tfmeta.preset_files import LEARNER, PRESET, checked_bytes
from tfmeta.versions import locked, publish, versions


def download(address: str, refresh: bool = False) -> Path:
    """Downloads a preset's folder, unless the cache has it.

    Args:
        address: `https://…`, `gs://bucket/…`, `hf://owner/repository/…`, or
            `hf://owner/repository@revision/…`.
        refresh: Whether to download even if the cache has it. Defaults to False.

    Returns:
        The folder in the cache, whose `learner.keras` has the digest that `preset.json` says.

    Raises:
        ValueError: If the scheme is unknown, the download fails, or the digest differs.
    """
    scheme, _, rest = address.rstrip("/").partition("://")
    fetch = FETCH.get(scheme)
    if fetch is None:
        raise ValueError(
            f"{address}: presets come from {', '.join(f'{name}://' for name in FETCH)}, from a "
            f"folder, or by name; got {scheme}://."
        )
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    cache = home / "tfmeta" / hashlib.sha256(f"{scheme}://{rest}".encode()).hexdigest()

    def cached() -> Path | None:
        for version in reversed(versions(cache)):
            # A file that was altered here is downloaded again.
            with contextlib.suppress(ValueError, OSError):
                checked_bytes(cache / str(version))
                return cache / str(version)
        return None

    def write(folder: Path) -> None:
        for name in (PRESET, LEARNER):
            try:
                fetch(rest, name, folder)
            except Exception as error:
                # Each library raises its own errors.
                raise ValueError(
                    f"{address}/{name} could not be downloaded: {' '.join(str(error).split())}"
                ) from error
        try:
            checked_bytes(folder)
        except ValueError as error:
            raise ValueError(
                f"{address} is no preset, or was altered there or on the way: {error}"
            ) from error

    folder = None if refresh else cached()
    if folder is None:
        # One downloads for all: each further version would push out the one that another reads.
        with locked(cache / "download"):
            folder = (None if refresh else cached()) or publish(cache, write, keep=2)
    return folder


def _from_https(rest: str, name: str, folder: Path) -> None:
    import keras

    keras.utils.get_file(name, f"https://{rest}/{name}", cache_subdir="", cache_dir=str(folder))


def _from_google_storage(rest: str, name: str, folder: Path) -> None:
    import tensorflow as tf

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
    repository, has_revision, revision = repository.partition("@")
    if not (owner and repository) or (has_revision and not revision):
        raise ValueError(
            "an address on the Hub is hf://owner/repository, or a folder in that; with a revision "
            "hf://owner/repository@revision."
        )
    # The library's own cache keeps the file, too.
    file = huggingface_hub.hf_hub_download(
        f"{owner}/{repository}",
        "/".join([*path, name]),
        # A branch may have a slash in its name: write %2F.
        revision=urllib.parse.unquote(revision) or None,
    )
    shutil.copy(file, folder / name)


FETCH: dict[str, Callable[[str, str, Path], None]] = {
    "https": _from_https,
    "gs": _from_google_storage,
    "hf": _from_hugging_face,
}
