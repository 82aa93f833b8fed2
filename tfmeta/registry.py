"""Looks up entries by name, with an error that suggests the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def find(kind: str, name: Any, known: Mapping[str, T]) -> T:
    """Returns the entry with this name.

    Args:
        kind: str. What the entries are, for the error message: "learner", for example.
        name: The name to look up. Anything but a known name is an error.
        known: mapping from str. The entries by name.

    Returns:
        The entry.

    Raises:
        ValueError: If there is no such entry. The message names the nearest name, or all names.
    """
    if name not in known:
        raise ValueError(f"There is no {kind} {name!r}; {hint(name, known)}")
    return known[name]


def hint(name: Any, known: Collection[str]) -> str:
    """Returns the end of the error: the nearest name, or all names.

    Args:
        name: The unknown name.
        known: collection of str. The known names.

    Returns:
        str. A question or a sentence with its final mark.
    """
    nearest = difflib.get_close_matches(str(name)[:100], list(known), n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {list(known)}."
