"""Instructions for a network that a task is calling; only the calling thread sees them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import tensorflow as tf

if TYPE_CHECKING:
    from tfmeta.networks.pairs import Pairs

# The statistics of batch norm. "batch": the input's own; "update": the input's own, which also
# update the moving averages; "replace": the input's own, which also replace the moving averages;
# "moving": the moving averages.
Normalization = Literal["batch", "update", "replace", "moving"]


@dataclasses.dataclass(frozen=True)
class Episode:
    """One call of a network by a task.

    Attributes:
        normalization: str. The statistics that batch norm normalises with.
        mask: tf.Tensor `[N]` or None. 0 for rows that must not enter statistics.
        network_input: The tensor that the network was called with.
        pairs: Pairs or None. The pairs that `network_input` was joined from.
        adapts: bool. Whether the network's weights adapt, so that second derivatives are needed.
        convolutions: dict. Results of convolutions that batch norm can normalise by their kernel,
            by the `id` of the result. Keras hands a layer's output on to the next layer as the same
            object; if it did not, batch norm would find nothing here and compute by itself.
    """

    normalization: Normalization
    mask: tf.Tensor | None
    network_input: Any
    pairs: Pairs | None
    adapts: bool = True
    convolutions: dict[int, Any] = dataclasses.field(default_factory=dict)


_CURRENT: ContextVar[Episode | None] = ContextVar("tfmeta_episode", default=None)


def current_episode() -> Episode | None:
    """Returns the episode of this thread. None outside of one: layers are plain Keras layers."""
    return _CURRENT.get()


@contextlib.contextmanager
def in_episode(episode: Episode) -> Iterator[None]:
    """Opens an episode for the calls that this thread makes until it is closed."""
    token = _CURRENT.set(episode)
    try:
        yield
    finally:
        _CURRENT.reset(token)
