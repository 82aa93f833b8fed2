"""Checks that run inside a graph, each with an error in one sentence."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

# The rest of a check's message about a step of meta-training.
NOT_FINITE = (
    " of training step {} is not finite, and the weights stay as they were: look for NaN in the "
    "episodes, lower the learning rates, or clip gradients"
)


class NotFiniteError(ValueError):
    """A step of meta-training is not finite, and was not taken."""


class Check(NamedTuple):
    """A condition that must hold.

    Attributes:
        holds: tf.Tensor, scalar bool. The condition.
        message: str. A sentence without brackets, for the error. It may have a `{}`.
        got: tf.Tensor or None. A value to put there, or to add to the message. Defaults to None.
    """

    holds: tf.Tensor
    message: str
    got: tf.Tensor | None = None


def require(checks: Sequence[Check]) -> list[tf.Operation]:
    """Makes sure that conditions hold.

    Args:
        checks: list of Check. The conditions.

    Returns:
        In a graph, operations on which what needs the conditions must depend. None eagerly.

    Raises:
        ValueError: Eagerly, if a condition does not hold. In a graph, the call of the function
            raises an error instead, which `in_one_sentence` turns into a ValueError.
    """
    if not tf.executing_eagerly():
        return [
            tf.debugging.Assert(c.holds, [c.message, *([] if c.got is None else [c.got])])
            for c in checks
        ]
    for check in checks:
        if not bool(check.holds):
            raise _error(check.message, check.got)
    return []


@contextlib.contextmanager
def in_one_sentence() -> Iterator[None]:
    """Turns the error of a check in a graph into a ValueError, without the graph's traceback.

    Raises:
        ValueError: If a check failed, or XLA cannot compile an operation; a `NotFiniteError` if
            a step of meta-training is not finite.
        MemoryError: If the device's memory is too small.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(
            "The memory of the device is too small for all tasks of a meta-batch at once: give the "
            "learner tasks_at_once=, a part of them, or take smaller meta-batches. "
            f"({error.message.splitlines()[0]})"
        ) from None
    except tf.errors.InvalidArgumentError as error:
        unknown = re.search(r"Detected unsupported operations when.*?: (\w+)", error.message)
        if unknown is not None:
            raise ValueError(
                f"XLA cannot compile the operation {unknown.group(1)}: compile the learner with "
                "jit_compile=False, or put another layer in place of the one with this operation."
            ) from None
        failed = re.search(r"assertion failed: \[([^\]]*)\](?: \[([^\]]*)\])?", error.message)
        if failed is None:
            raise
        raise _error(*failed.groups()) from None


def _error(message: str, got: object) -> ValueError:
    kind = NotFiniteError if message.endswith(NOT_FINITE) else ValueError
    if "{}" in message:
        return kind(f"{message.format(got)}.")
    return kind(f"{message}." if got is None else f"{message}; got {got}.")


def all_finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns whether all numbers are finite. One sum each costs less than a test of each number.

    Args:
        tensors: list of tf.Tensor. Floats of any shapes.
    """
    return tf.math.is_finite(tf.add_n([tf.cast(tf.reduce_sum(t), tf.float64) for t in tensors]))
