"""The error of a servable that must not be published, and its translation from TensorFlow's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from tfmeta import tensorflow_internals


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
        raise ServableError(f"{what}: {tensorflow_internals.cause_of(error)}") from error
