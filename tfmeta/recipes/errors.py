"""Turns pydantic's errors into one sentence."""

from __future__ import annotations

import pydantic

# pydantic chooses the options of these sections by a tag, which it adds to the path of an error.
TAGGED = ("data", "network", "learner", "inner_rule")


def sentence(error: pydantic.ValidationError) -> str:
    """Returns the first error, as in "training: epochs must be an integer > 0; got 0."

    Args:
        error: pydantic.ValidationError. The error of a recipe or of one of its sections.

    Returns:
        str. The path of the key, what was expected, and what was given.
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
    elif not path and first["type"] != "of_section":
        path = ["the recipe"]
    return ": ".join([*path, message])
