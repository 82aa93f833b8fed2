"""Downloads presets from addresses into a cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmeta.preset_files import LEARNER, MOST_BYTES, PRESET, check, naming
from tfmeta.versions import publish, versions

# A server that is silent for so many seconds, or sends less than this many bytes per second after
# its first minute, is given up.
SILENCE = 30.0
BYTES_PER_SECOND = 1_000


class _AlreadyCachedError(Exception):
    """Another process has downloaded the same meanwhile."""


def download(address: str, refresh: bool = False) -> Path:
    """Downloads a preset's folder, unless the cache has it.

    Processes that need it at the same time each download it: none waits for the server of another.

    Args:
        address: str. `https://…`, `gs://bucket/…`, `hf://owner/repository/…`, or
            `hf://owner/repository@revision/…`.
        refresh: bool. Whether to download even if the cache has it. Defaults to False.

    Returns:
        Path. The folder in the cache. Its files have the digests in `preset.json`.

    Raises:
        ValueError: If the scheme is unknown, the download fails, is too large or too slow, or a
            digest differs. The message names the address.
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
            # Skip a version that was altered in the cache: it is downloaded again.
            with contextlib.suppress(ValueError, OSError):
                check(cache / str(version))
                return cache / str(version)
        return None

    def write(folder: Path) -> None:
        for name in (PRESET, LEARNER):
            try:
                fetch(rest, name, folder)
            except Exception as error:
                # Each library raises its own errors.
                text = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"{address}/{name} could not be downloaded: {text}") from error
        try:
            with naming(folder, address):
                check(folder)
        except ValueError as error:
            raise ValueError(
                f"{address} is no preset, or was altered there or on the way: {error}"
            ) from error
        if not refresh and cached():
            raise _AlreadyCachedError

    folder = None if refresh else cached()
    if folder is None:
        try:
            # Versions that other processes may be reading stay.
            folder = publish(cache, write, keep=3)
        except _AlreadyCachedError:
            folder = cached()
    if folder is None:
        raise ValueError(f"{address} was removed from the cache meanwhile: try again.")
    return folder


def _check_size(size: int, name: str) -> None:
    if size > MOST_BYTES[name]:
        raise ValueError(f"it has {size:,} bytes; at most {MOST_BYTES[name]:,} are accepted.")


def _from_https(rest: str, name: str, folder: Path) -> None:
    import urllib.request

    class OnlyHttps(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, request: Any, *others: Any) -> Any:
            redirected = super().redirect_request(request, *others)
            if redirected is not None and redirected.type != "https":
                raise ValueError(f"it is redirected to {redirected.full_url}, which is not https.")
            return redirected

    began, received = time.monotonic(), 0
    opener = urllib.request.build_opener(OnlyHttps)
    with (
        opener.open(f"https://{rest}/{name}", timeout=SILENCE) as answer,
        (folder / name).open("wb") as file,
    ):
        length = answer.headers.get("Content-Length")
        _check_size(int(length or 0), name)
        while piece := answer.read1(1 << 20):
            received += len(piece)
            _check_size(received, name)
            if time.monotonic() - began > 60 + received / BYTES_PER_SECOND:
                raise ValueError(f"it comes at less than {BYTES_PER_SECOND:,} bytes per second.")
            file.write(piece)
        if length is not None and received != int(length):
            raise ValueError(f"the connection ended after {received:,} of {int(length):,} bytes.")


def _from_google_storage(rest: str, name: str, folder: Path) -> None:
    import tensorflow as tf

    _check_size(tf.io.gfile.stat(f"gs://{rest}/{name}").length, name)
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
    repository, file = f"{owner}/{repository}", "/".join([*path, name])
    # A slash in the name of a branch is written %2F in an address.
    of: dict[str, Any] = {"revision": urllib.parse.unquote(revision) or None}
    found = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, file, **of))
    _check_size(found.size or 0, name)
    # The library has time-outs of its own, and keeps another copy in its own cache.
    shutil.copy(huggingface_hub.hf_hub_download(repository, file, **of), folder / name)


FETCH: dict[str, Callable[[str, str, Path], None]] = {
    "https": _from_https,
    "gs": _from_google_storage,
    "hf": _from_hugging_face,
}
