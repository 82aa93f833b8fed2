"""Losses that layers add (activity regularisers, `add_loss`), kept apart for each task."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import tensorflow as tf

_CURRENT: ContextVar[list[tf.Tensor] | None] = ContextVar("tfmeta_layer_losses", default=None)


@contextlib.contextmanager
def collecting_losses() -> Iterator[list[tf.Tensor]]:
    """Collects the losses that layers add in this thread, until it is closed or opened again.

    Yields:
        A list of scalars, which fills.
    """
    losses: list[tf.Tensor] = []
    token = _CURRENT.set(losses)
    try:
        yield losses
    finally:
        _CURRENT.reset(token)


def add_losses(losses: Sequence[tf.Tensor]) -> None:
    """Hands losses of layers to whoever collects them; without a collector they are dropped."""
    collector = _CURRENT.get()
    if collector is not None:
        collector.extend(losses)


def sum_of(losses: Sequence[tf.Tensor], dtype: str) -> tf.Tensor | None:
    """Returns the sum of losses, as Keras sums them up; None if there are none."""
    if not losses:
        return None
    return tf.add_n([tf.cast(tf.reduce_sum(loss), dtype) for loss in losses])
