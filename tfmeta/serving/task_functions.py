"""A learner's two functions of one task, each traced once for all signatures of a servable."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.serving.errors import as_servable_error
from tfmeta.serving.requests import Tensors

# Two support sets of different sizes and numbers of classes show which dimensions vary.
SMALL_TASKS = ((6, 2), (7, 3))


class TaskState(NamedTuple):
    """The state tensors of a task.

    Attributes:
        specs: dict of `tf.TensorSpec` by name. The tensors of one task, without a dimension of
            tasks. A size is None if the task decides it.
        equal_sizes: list of groups. The dimensions in a group, each the name of a tensor and its
            axis in a request (axis 0 counts tasks), have the same size in every task.
    """

    specs: dict[str, tf.TensorSpec]
    equal_sizes: list[list[tuple[str, int]]]

    def count_numbers(self) -> int:
        """Returns how many numbers a task's state holds, with 1 for sizes that vary."""
        return sum(math.prod(size or 1 for size in spec.shape) for spec in self.specs.values())


class TaskFunctions(NamedTuple):
    """A learner's functions of one task, as parts of a graph.

    Attributes:
        adapt: callable. From the support set `{support_x: [S, *x], …}` and n_way (a scalar int32
            tensor, or None for regression) to the tensors of the state, in the order of `state`.
        predict: callable. From these and the queries `[Q, *x]` to predictions.
        state: TaskState.
    """

    adapt: Callable[[Tensors, tf.Tensor | None], list[tf.Tensor]]
    predict: Callable[[Sequence[tf.Tensor], tf.Tensor], tf.Tensor]
    state: TaskState


def trace_task_functions(
    learner: MetaLearner,
    support_specs: Mapping[str, tf.TensorSpec],
    query_spec: tf.TensorSpec,
    n_outputs: int | None,
) -> TaskFunctions:
    """Traces `adapt_task` and `predict_task` of a learner, each once.

    Args:
        learner: MetaLearner. A built learner.
        support_specs: dict of `tf.TensorSpec`. The support set of a request, `[T, S, …]` each.
        query_spec: `tf.TensorSpec`. The queries of a request, `[T, Q, *x]`.
        n_outputs: int or None. The number of classes, if the network fixes it.

    Raises:
        ServableError: If the learner fails on a small support set.
    """
    is_regression = learner.output_kind == "values"
    task_specs = {
        name: tf.TensorSpec(spec.shape[1:], spec.dtype, name)
        for name, spec in support_specs.items()
    }
    if not is_regression:
        task_specs["n_way"] = tf.TensorSpec([], tf.int32, "n_way")

    def adapt(inputs: dict[str, tf.Tensor]) -> Any:
        # The scope keeps layers from writing variables, as it does when the learner is called.
        with keras.StatelessScope():
            return learner.adapt_task(**inputs)

    adapt_function = tf.function(adapt, input_signature=[task_specs], autograph=False)
    structure = adapt_function.get_concrete_function().structured_outputs
    with as_servable_error(f"{learner.name} cannot learn a small task"):
        state = _measure_state(adapt_function, structure, task_specs, n_outputs)

    def predict(leaves: list[tf.Tensor], query_x: tf.Tensor) -> tf.Tensor:
        with keras.StatelessScope():
            predictions = learner.predict_task(
                keras.tree.pack_sequence_as(structure, leaves), query_x
            )
        return tf.cast(predictions, learner.variable_dtype)

    predict_function = tf.function(
        predict,
        input_signature=[
            list(state.specs.values()),
            tf.TensorSpec(query_spec.shape[1:], query_spec.dtype, "query_x"),
        ],
        autograph=False,
    )

    def adapt_to_leaves(support: Tensors, n_way: tf.Tensor | None) -> list[tf.Tensor]:
        inputs = dict(support) if is_regression else {**support, "n_way": n_way}
        leaves = keras.tree.flatten(adapt_function(inputs))
        return [
            tf.ensure_shape(leaf, spec.shape)
            for leaf, spec in zip(leaves, state.specs.values(), strict=True)
        ]

    def predict_from_leaves(leaves: Sequence[tf.Tensor], query_x: tf.Tensor) -> tf.Tensor:
        return predict_function(list(leaves), query_x)

    return TaskFunctions(adapt_to_leaves, predict_from_leaves, state)


def _measure_state(
    adapt_function: Callable[[dict[str, tf.Tensor]], Any],
    structure: Any,
    task_specs: Mapping[str, tf.TensorSpec],
    n_outputs: int | None,
) -> TaskState:
    """Compares the states of two small tasks to find the sizes that vary from task to task.

    The trace alone does not show them: all sizes that depend on the support set are unknown in it,
    and it does not say which of them are always equal.
    """
    first, second = (
        keras.tree.flatten(adapt_function(_small_support(task_specs, *sizes, n_outputs)))
        for sizes in SMALL_TASKS
    )
    specs: dict[str, tf.TensorSpec] = {}
    groups: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    for path, a, b in zip(paths, first, second, strict=True):
        name = "_".join(["state", *map(str, path)])
        sizes = list(zip(a.shape, b.shape, strict=True))
        shape = [m if m == n else None for m, n in sizes]
        specs[name] = tf.TensorSpec(shape, a.dtype, name)
        for axis, (m, n) in enumerate(sizes, start=1):
            if m != n:
                groups[m, n].append((name, axis))
    return TaskState(specs, list(groups.values()))


def _small_support(
    task_specs: Mapping[str, tf.TensorSpec], n_support: int, n_way: int, n_outputs: int | None
) -> dict[str, tf.Tensor]:
    """Returns a support set of random examples, with all classes in turn."""
    rng = np.random.default_rng(0)
    n_way = n_way if n_outputs is None else min(n_way, n_outputs)
    inputs = {}
    for name, spec in task_specs.items():
        if name == "n_way":
            value = np.array(n_way)
        elif name == "support_mask":
            value = np.ones(n_support)
        elif spec.dtype.is_floating:
            value = rng.uniform(size=[n_support, *spec.shape[1:]])
        else:  # labels
            value = np.arange(n_support) % n_way
        inputs[name] = tf.cast(value, spec.dtype)
    return inputs
