"""Means over the tasks of a meta-batch, as fast as the machine allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfmeta.task_mapping import How, map_tasks
from tfmeta.threads import only_cpu

# The signature of a number.
SCALAR = tf.TensorSpec([], tf.float32)


def at_once(function: Callable[[Any], Any], elements: Any) -> Any:
    """Maps a function of one task's elements over all tasks at once.

    Args:
        function: function of one task's elements.
        elements: nested structure of tf.Tensor `[T, …]`.

    Returns:
        Nested structure of tf.Tensor `[T, …]`.
    """
    if tf.nest.flatten(elements)[0].shape[0] > 1:
        return map_tasks(function, elements, None, How(vectorized=True))
    # XLA would take all that a vectorised function is called with for constants, and compile its
    # gradient anew for all other values.
    results = function(tf.nest.map_structure(lambda x: x[0], elements))
    return tf.nest.map_structure(lambda x: x[None], results)


def each_task(
    function: Callable[[Any], Any], elements: Any, signature: Any, jit_compile: bool
) -> Any:
    """Maps a function of T tasks' elements over the tasks, one by one on a CPU.

    A CPU's caches hold the activations of one task. Compiled by XLA, its many small operations on
    thousands of steps are several times as fast.

    Args:
        function: function of elements of T tasks, for any T, that treats each task by itself.
        elements: nested structure of tf.Tensor `[T, …]`.
        signature: nested structure of tf.TensorSpec. What the function returns for a task, without
            the axis of tasks.
        jit_compile: bool. Whether XLA compiles it, on a CPU.

    Returns:
        Nested structure of tf.Tensor `[T, …]`.
    """
    if not only_cpu():
        return function(elements)

    def of_one(element: Any) -> Any:
        results = function(tf.nest.map_structure(lambda x: x[None], element))
        return tf.nest.map_structure(lambda x: x[0], results)

    return map_tasks(of_one, elements, signature, How(compiled=jit_compile))


def mean_over_tasks(
    function: Callable[[Any], Any], elements: Any, signature: Any, jit_compile: bool
) -> Any:
    """Computes the mean over tasks of a function that is itself a mean over tasks.

    Args:
        function: function of elements of T tasks, for any T, to a mean over these tasks.
        elements: nested structure of tf.Tensor `[T, …]`.
        signature: nested structure of tf.TensorSpec. What the function returns.
        jit_compile: bool. Whether XLA compiles it, on a CPU.

    Returns:
        Nested structure of tf.Tensor, as the function's.
    """
    if not only_cpu():
        return function(elements)

    def of_one(elements: Any) -> Any:
        return tf.nest.map_structure(lambda x: x[None], function(elements))

    means = each_task(of_one, elements, signature, jit_compile)
    return tf.nest.map_structure(lambda x: tf.reduce_mean(x, axis=0), means)


def specs(values: Any) -> Any:
    """Returns the shapes and dtypes of tensors or variables, as a signature."""
    return tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), values)
