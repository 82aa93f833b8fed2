"""Maps a function of one task over the tasks of a meta-batch: in a loop, or all tasks at once.

A loop is best on CPUs, whose caches hold one task's activations. A GPU is fast only if it is given
all tasks at once, in a compiled program. This is the one place that knows both.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from tfmeta import pfor_internals
from tfmeta.threads import only_cpu, tasks_in_parallel

# "loop": one task after another; "vectorized": all at once; "auto": all at once if there is a GPU.
TaskMapping = Literal["auto", "loop", "vectorized"]
TASK_MAPPINGS = ("auto", "loop", "vectorized")


class How(NamedTuple):
    """How tasks are mapped.

    Attributes:
        vectorized: bool. Whether all tasks are mapped at once.
        compiled: bool. Whether XLA compiles the map.
        tasks_at_once: int or None. How many tasks are vectorised at once; None for all.
    """

    vectorized: bool = False
    compiled: bool = False
    tasks_at_once: int | None = None


def choose(
    mapping: TaskMapping, tasks_at_once: int | None, jit_compile: bool | Literal["auto"]
) -> How:
    """Chooses how to map tasks on the devices that TensorFlow sees.

    Args:
        mapping: str. The learner's choice.
        tasks_at_once: int or None. How many tasks are vectorised at once; None for all.
        jit_compile: bool or "auto". Whether to compile; "auto" compiles vectorised maps on GPUs.
    """
    has_gpu = not only_cpu()
    eager = tf.executing_eagerly()
    vectorized = mapping == "vectorized" or (mapping == "auto" and has_gpu and not eager)
    compiled = not eager and (vectorized and has_gpu if jit_compile == "auto" else jit_compile)
    return How(vectorized, compiled, tasks_at_once)


# === While tasks are vectorised ===

_VECTORIZED: ContextVar[Literal["values", "gradients"] | None] = ContextVar(
    "tfmeta_vectorized", default=None
)


def is_vectorizing() -> bool:
    """Returns whether the code that runs now is traced for all tasks at once.

    Layers then compute by operations of which `tf.vectorized_map` makes fast ones.
    """
    return _VECTORIZED.get() is not None


def is_vectorizing_gradients() -> bool:
    """Returns whether each task's gradient is taken, too, while all tasks are mapped at once.

    Then all weights have a gradient for each task, also those that all tasks share.
    """
    return _VECTORIZED.get() == "gradients"


@contextlib.contextmanager
def _vectorizing(what: Literal["values", "gradients"]) -> Iterator[None]:
    token = _VECTORIZED.set(what)
    try:
        yield
    finally:
        _VECTORIZED.reset(token)


# === Maps ===


def map_tasks(function: Callable[[Any], Any], elements: Any, signature: Any, how: How) -> Any:
    """Maps a function over tasks, and stacks its results.

    Args:
        function: function of one task's elements.
        elements: nested structure of tf.Tensor `[T, …]`.
        signature: nested structure of dtypes or tf.TensorSpec: what the function returns.
        how: How. How they are mapped.

    Returns:
        Nested structure of tf.Tensor `[T, …]`.
    """
    # As Keras runs layers: without AutoGraph, whose conversion slows every eager call.
    function = tf.autograph.experimental.do_not_convert(function)

    def in_a_loop(elements: Any) -> Any:
        return tf.map_fn(
            function,
            elements,
            fn_output_signature=signature,
            parallel_iterations=None if tf.executing_eagerly() else tasks_in_parallel(),
        )

    def at_once(elements: Any) -> Any:
        if how.tasks_at_once is None:
            return _vectorized(function, elements, "values")
        chunks, n_tasks = _chunks(elements, how.tasks_at_once)
        results = tf.map_fn(
            tf.autograph.experimental.do_not_convert(
                lambda chunk: _vectorized(function, chunk, "values")
            ),
            chunks,
            fn_output_signature=tf.nest.map_structure(
                lambda x: tf.TensorSpec(None, getattr(x, "dtype", x)), signature
            ),
            parallel_iterations=1,
        )
        return tf.nest.map_structure(lambda x: _joined(x)[:n_tasks], results)

    return _run(in_a_loop, at_once, elements, how)


def sum_tasks(
    function: Callable[[Any], Any], elements: Any, start: Any, predictions_dtype: str, how: How
) -> tuple[Any, tf.Tensor]:
    """Sums what a function gives for each task, so that no task's results need be kept.

    Args:
        function: function of one task's elements, each `[1, …]`. It returns a nested structure of
            numbers to sum, and the task's predictions.
        elements: nested structure of tf.Tensor `[T, …]`.
        start: nested structure of tf.Tensor. What floats are added to; of integers, the largest
            is taken.
        predictions_dtype: str. The dtype of predictions.
        how: How. How tasks are mapped.

    Returns:
        The sums; and the predictions of all tasks, `[T, …]`.
    """

    def in_a_loop(elements: Any) -> Any:
        n_tasks = _n_tasks(elements)

        def add(index: tf.Tensor, sums: Any, predictions: tf.TensorArray) -> tuple[Any, ...]:
            element = tf.nest.map_structure(lambda x: x[index][None], elements)
            update, predicted = function(element)
            return index + 1, _added(sums, update), predictions.write(index, predicted)

        _, sums, predictions = tf.while_loop(
            lambda index, *_: index < n_tasks,
            add,
            (tf.constant(0), start, tf.TensorArray(predictions_dtype, size=n_tasks)),
            parallel_iterations=tasks_in_parallel(),
        )
        return sums, predictions.stack()

    def sum_of_chunk(chunk: Any, counts: tf.Tensor | None) -> tuple[Any, tf.Tensor]:
        updates, predictions = _vectorized(
            lambda element: function(tf.nest.map_structure(lambda x: x[None], element)),
            chunk,
            "gradients",
        )
        return tf.nest.map_structure(lambda x: _reduced(x, counts), updates), predictions

    def at_once(elements: Any) -> Any:
        if how.tasks_at_once is None:
            update, predictions = sum_of_chunk(elements, None)
            return _added(start, update), predictions
        chunks, n_tasks = _chunks(elements, how.tasks_at_once)
        n_chunks = _n_tasks(chunks)

        def add(index: tf.Tensor, sums: Any, predictions: tf.TensorArray) -> tuple[Any, ...]:
            chunk = tf.nest.map_structure(lambda x: x[index], chunks)
            counts = index * how.tasks_at_once + tf.range(how.tasks_at_once) < n_tasks
            update, predicted = sum_of_chunk(chunk, counts)
            return index + 1, _added(sums, update), predictions.write(index, predicted)

        _, sums, predictions = tf.while_loop(
            lambda index, *_: index < n_chunks,
            add,
            (tf.constant(0), start, tf.TensorArray(predictions_dtype, size=n_chunks)),
            parallel_iterations=1,
        )
        return sums, _joined(predictions.stack())[:n_tasks]

    return _run(in_a_loop, at_once, elements, how)


def _run(in_a_loop: Any, at_once: Any, elements: Any, how: How) -> Any:
    run = at_once if how.vectorized else in_a_loop
    if how.compiled:
        run = tf.function(run, jit_compile=True, autograph=False)
    try:
        return run(elements)
    except pfor_internals.NotVectorizableError as error:
        warnings.warn(
            f"The tasks cannot be mapped all at once ({error}), and are mapped one after another, "
            "which is slow on a GPU: put another layer in place of the one with this operation.",
            stacklevel=2,
        )
        return in_a_loop(elements)


def _vectorized(
    function: Callable[[Any], Any], elements: Any, what: Literal["values", "gradients"]
) -> Any:
    def traced(element: Any) -> Any:
        with _vectorizing(what):
            return function(element)

    loops: list[str] = []
    traced = tf.autograph.experimental.do_not_convert(traced)
    results = pfor_internals.vectorized_map(traced, elements, loops)
    if loops:
        warnings.warn(
            f"The operations {', '.join(sorted(set(loops)))} have no form for all tasks at once: "
            "they run once per task, which is slow on a GPU. Put other layers in their place.",
            stacklevel=2,
        )
    return results


# === Sums and chunks ===


def _added(sums: Any, update: Any) -> Any:
    return tf.nest.map_structure(
        lambda a, b: a + tf.cast(b, a.dtype) if a.dtype.is_floating else tf.maximum(a, b),
        sums,
        update,
    )


def _reduced(x: tf.Tensor, counts: tf.Tensor | None) -> tf.Tensor:
    """Sums floats over the tasks that count, and takes the largest of integers."""
    if not x.dtype.is_floating:
        return tf.reduce_max(x, axis=0)
    if counts is not None:
        counts = tf.reshape(counts, [-1] + [1] * (x.shape.rank - 1))
        x = tf.where(counts, x, tf.zeros([], x.dtype))
    return tf.reduce_sum(x, axis=0)


def _n_tasks(elements: Any) -> Any:
    first = tf.nest.flatten(elements)[0]
    return tf.shape(first)[0] if first.shape[0] is None else first.shape[0]


def _chunks(elements: Any, size: int) -> tuple[Any, Any]:
    """Splits `[T, …]` into `[chunks, size, …]`, the last filled up by repeating the last task."""
    n_tasks = _n_tasks(elements)
    n_chunks = -(-n_tasks // size)
    rows = tf.minimum(tf.range(n_chunks * size), n_tasks - 1)

    def split(x: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[n_chunks, size], tf.shape(x)[1:]], axis=0)
        chunks = tf.reshape(tf.gather(x, rows), shape)
        static = n_chunks if isinstance(n_chunks, int) else None
        return tf.ensure_shape(chunks, [static, size, *x.shape[1:]])

    return tf.nest.map_structure(split, elements), n_tasks


def _joined(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], axis=0))
