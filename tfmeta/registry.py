"""Looking things up by name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def find(kind: str, name: Any, known: Mapping[str, T]) -> T:
    """The one of this name.

    Raises:
        ValueError: If there is none; it names the nearest.
    """
    if name not in known:
        raise ValueError(f"There is no {kind} {name!r}; {hint(name, known)}")
    return known[name]


def hint(name: Any, known: Collection[str]) -> str:
    """The end of a message on an unknown name: the nearest one, or all."""
    nearest = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {list(known)}."
