"""A digest of images that is computed while they are made, and kept with a data set."""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping
from typing import Any

import numpy as np


class RunningDigest:
    """A SHA-256 of all images so far, in their order.

    Args:
        metadata: mutable mapping. Gets the digest as its entry "digest".
    """

    def __init__(self, metadata: MutableMapping[str, Any]) -> None:
        self._metadata = metadata
        self._content = hashlib.sha256()

    def add(self, key: str, image: np.ndarray) -> None:
        """Adds an image.

        Args:
            key: str. What the image shows.
            image: uint8 array. The image.
        """
        self._content.update(key.encode() + b"\0" + np.ascontiguousarray(image).tobytes())
        self._metadata["digest"] = self._content.hexdigest()
