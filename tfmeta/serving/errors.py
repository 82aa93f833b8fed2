"""The error of a servable that must not be published, and its translation from TensorFlow's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf


class ServableError(ValueError):
    """Raised when a servable fails a check and must not be published."""


@contextmanager
def as_servable_error(what: str) -> Iterator[None]:
    """Turns an error of TensorFlow into a `ServableError` that says what failed and why.

    Args:
        what: str. What failed, for example "The signature 'adapt' fails on a warmup request".

    Raises:
        ServableError: If TensorFlow raises an error within the `with` block.
    """
    try:
        yield
    except tf.errors.OpError as error:
        # An error inside a graph lists the nodes that led to it, one per line that begins with
        # "\t [[". The line before the first node is the message itself.
        lines = error.message.splitlines() or [type(error).__name__]
        first_node = next((i for i, line in enumerate(lines) if line.startswith("\t [[") and i), 0)
        cause = re.sub(r"^{{.*?}} | \[Op:.*", "", lines[first_node - 1])
        raise ServableError(f"{what}: {cause}") from error
