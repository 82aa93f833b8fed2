"""Completes `tf.vectorized_map`, by private interfaces; see `keras_internals`."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def complete_converters() -> None:
    """Lets `tf.vectorized_map` and `tape.jacobian` pass through operations that learners use.

    Rests on pfor's registry of converters. TensorFlow's own of `tf.gather_nd` drops
    `bad_indices_policy`, so that an index that should give zeros raises an error. That of `tf.roll`
    takes a negative axis for the one after it, and so rolls the tasks themselves. And it has none
    of the operations by which random numbers are drawn from a seed, and images resized.
    """
    from tensorflow.python.ops.parallel_for import pfor

    registry = pfor._pfor_converter_registry
    own = registry["GatherNd"]
    if getattr(own, "is_completed", False):
        return

    def convert_gather_nd(node: Any) -> Any:
        policy = node.get_attr("bad_indices_policy")
        if not policy:
            return own(node)
        node.stack_inputs(stack_indices=[0, 1])
        params, indices = node.stacked_input(0), node.stacked_input(1)
        iterations = tf.range(tf.shape(indices)[0], dtype=indices.dtype)
        iterations = tf.reshape(iterations, [-1] + [1] * (indices.shape.rank - 1))
        iterations = tf.broadcast_to(iterations, tf.shape(indices[..., :1]))
        indices = tf.concat([iterations, indices], axis=-1)
        found = tf.gather_nd(params, indices, bad_indices_policy=tf.compat.as_str(policy))
        return pfor.wrap(found, True)

    def convert_roll(node: Any) -> Any:
        shift, is_stacked, _ = node.input(1)
        if is_stacked:
            return pfor._fallback_converter(node)
        axis = node.unstacked_input(2)
        rolled = tf.roll(node.stacked_input(0), shift, tf.where(axis < 0, axis, axis + 1))
        return pfor.wrap(rolled, True)

    convert_gather_nd.is_completed = True  # type: ignore[attr-defined]
    registry["GatherNd"] = convert_gather_nd
    registry["Roll"] = convert_roll
    # An operation draws from one seed: a loop over the tasks, as TensorFlow does for the first
    # versions of these operations.
    for name in RANDOM:
        registry.setdefault(name, pfor._fallback_converter)
    # Of all tasks' images it makes one batch.
    for name, inputs in OF_IMAGES.items():
        as_one_batch = functools.partial(pfor._convert_flatten_batch, op_type=name, dims=inputs)
        registry.setdefault(name, as_one_batch)


# Operations on each image of a batch, and which of their inputs are images.
OF_IMAGES = {
    "ResizeBicubic": [0],
    "ResizeBicubicGrad": [0, 1],
    "ResizeBilinear": [0],
    "ResizeBilinearGrad": [0, 1],
    "ResizeNearestNeighbor": [0],
    "ResizeNearestNeighborGrad": [0],
    "ScaleAndTranslate": [0],
    "ScaleAndTranslateGrad": [0, 1],
}
RANDOM = (
    "StatelessRandomGetKeyCounter",
    "StatelessRandomGetAlg",
    "StatelessRandomNormalV2",
    "StatelessRandomUniformFullIntV2",
    "StatelessRandomUniformIntV2",
    "StatelessRandomUniformV2",
    "StatelessTruncatedNormalV2",
)


class NotVectorizableError(ValueError):
    """Raised if `tf.vectorized_map` cannot map a function."""


def vectorized_map(function: Callable[[Any], Any], elements: Any, loops: list[str]) -> Any:
    """Computes `tf.vectorized_map`, with a loop for each operation that has no vectorised form.

    Rests on the wording of TensorFlow's messages about such operations, which are held back; so
    are its long accounts of errors.

    Args:
        function: function of one element.
        elements: nested structure of tf.Tensor `[N, …]`.
        loops: list of str. The types of operations that run in a loop are added to it, but for
            those that draw random numbers.

    Returns:
        Nested structure of tf.Tensor `[N, …]`.

    Raises:
        NotVectorizableError: If an operation can neither be vectorised nor run in a loop.
    """
    is_traced = False

    def traced(element: Any) -> Any:
        nonlocal is_traced
        is_traced = False
        result = function(element)
        is_traced = True
        return result

    def is_passed_on(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if found := re.search(r"while_loop for converting (\w+)|^(\w+) uses a while_loop", text):
            loops.extend(name for name in found.groups() if name and name not in RANDOM)
            return False
        return level <= record.levelno < logging.ERROR

    logger = tf.get_logger()
    level = logger.getEffectiveLevel()
    logger.addFilter(is_passed_on)
    logger.setLevel(logging.DEBUG)
    try:
        return tf.vectorized_map(traced, elements, fallback_to_while_loop=True)
    except Exception as error:
        if not is_traced:
            raise
        raise NotVectorizableError(str(error).partition("\n")[0]) from error
    finally:
        logger.setLevel(level)
        logger.removeFilter(is_passed_on)
