"""Turns pydantic's errors into one sentence."""

from __future__ import annotations

import pydantic

# Sections whose options pydantic chooses by a tag, which it then puts into the path of an error.
TAGGED = ("data", "network", "learner", "inner_rule")


def sentence(error: pydantic.ValidationError) -> str:
    """Returns the first of the errors, as in "training: epochs must be an integer > 0; got 0."

    Args:
        error: What a section's validation raised.

    Returns:
        The path of the key, what was expected, and what was given.
    """
    first = error.errors()[0]
    path: list[str] = []
    for before, part in zip((None, *first["loc"]), first["loc"], strict=False):
        if before in TAGGED:
            continue
        if isinstance(part, int):
            path[-1] += f"[{part}]"
        else:
            path.append(str(part))
    message = first["msg"]
    if message.startswith("must be"):
        subject = path.pop() if path else "the recipe"
        message = f"{subject} {message}"
    elif not path:
        path = ["the recipe"]
    return ": ".join([*path, message])
