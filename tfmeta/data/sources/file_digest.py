"""A digest of the files of a data set, by which a run notices that they changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def file_digest(names: Sequence[str], files: Sequence[Sequence[Path]]) -> str:
    """Returns a digest of the names and sizes of files, wherever their folder is.

    Args:
        names: sequence of str. A name for each class.
        files: sequence of sequences of Path. The files of each class.
    """
    digest = hashlib.sha256()
    for name, paths in zip(names, files, strict=True):
        for path in paths:
            line = f"{name}/{path.name} {path.stat().st_size}\n"
            # A name need not be valid UTF-8.
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()
