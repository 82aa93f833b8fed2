"""Checks of a request, which run inside the exported graph.

A bad request fails with an `INVALID_ARGUMENT` error that names the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tfmeta import tensorflow_internals

Tensors = Mapping[str, tf.Tensor]

# The names of inputs that hold encoded images, by the names of the arrays that they replace.
IMAGE_INPUTS = {"x": "images", "support_x": "support_images", "query_x": "query_images"}


def name_in_request(inputs: Tensors, name: str) -> str:
    """Returns the name of an array in the request, or of the images that replace it."""
    return name if name in inputs else IMAGE_INPUTS[name]


# === Single inputs ===


def with_checked_shapes(
    function: Callable[[Tensors], dict[str, tf.Tensor]], specs: Mapping[str, tf.TensorSpec]
) -> Callable[[Tensors], dict[str, tf.Tensor]]:
    """Wraps a signature so that it checks input shapes, which TensorFlow Serving does not do."""

    def checked_function(inputs: Tensors) -> dict[str, tf.Tensor]:
        return function(
            {name: _with_checked_shape(name, inputs[name], spec) for name, spec in specs.items()}
        )

    return checked_function


def _with_checked_shape(name: str, x: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    # TensorFlow trusts the shape in the signature and would optimise the check away. It knows no
    # shape for the output of a placeholder of unknown shape.
    x = tensorflow_internals.with_unknown_shape(x, f"{name}_of_any_shape")
    return tf.ensure_shape(x, spec.shape, name=f"{name}_must_have_the_shape")


def finite(name: str, x: tf.Tensor) -> tf.Tensor:
    """Returns the tensor after a check that its floats are finite."""
    return tf.debugging.assert_all_finite(x, f"{name} must be finite") if x.dtype.is_floating else x


def after_checks(checks: Sequence[tuple[str, tf.Tensor]], *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Returns the tensors after checks. A check is a message and a boolean scalar."""
    asserts = [tf.debugging.Assert(condition, [message]) for message, condition in checks]
    with tf.control_dependencies(asserts):
        return [tf.identity(tensor) for tensor in tensors]


def checked_examples(inputs: Tensors) -> tf.Tensor:
    """Returns the examples `[N, *x]` of a request to an adapted model; an error if N is 0."""
    name = name_in_request(inputs, "x")
    has_examples = tf.shape(inputs[name])[0] > 0
    (x,) = after_checks([(f"{name} must hold at least one example", has_examples)], inputs[name])
    return finite(name, x)


# === Inputs that must have equal sizes ===


def with_equal_task_counts(inputs: Tensors) -> dict[str, tf.Tensor]:
    """Returns the inputs after a check that all hold the same number of tasks, and queries."""
    first, *others = inputs
    n_tasks = tf.shape(inputs[first])[0]
    checks = [(f"{first} must hold at least one task", n_tasks > 0)]
    for name in others:
        is_equal = tf.shape(inputs[name])[0] == n_tasks
        checks.append((f"{name} and {first} must have the same number of tasks", is_equal))
    for name in ("query_x", IMAGE_INPUTS["query_x"]):
        if name in inputs:
            has_queries = tf.shape(inputs[name])[1] > 0
            checks.append((f"{name} must hold at least one query for each task", has_queries))
    return dict(zip(inputs, after_checks(checks, *inputs.values()), strict=True))


def with_equal_sizes(
    inputs: Tensors, equal_sizes: Sequence[Sequence[tuple[str, int]]]
) -> dict[str, tf.Tensor]:
    """Returns the inputs after a check that some of their dimensions have equal sizes.

    Args:
        inputs: dict of tensors. The request.
        equal_sizes: list of groups. A group lists dimensions that must have the same size, each
            as the name of an input and an axis.
    """
    checks = []
    for group in equal_sizes:
        sizes = [tf.shape(inputs[name])[axis] for name, axis in group]
        dimensions = ", ".join(f"{name} (dimension {axis})" for name, axis in group)
        is_equal = tf.reduce_all(tf.equal(sizes, sizes[0])) & (sizes[0] > 0)
        checks.append((f"{dimensions} must have one size, as adapt returned them", is_equal))
    return dict(zip(inputs, after_checks(checks, *inputs.values()), strict=True))


# === Support sets ===


def checked_support(
    inputs: Tensors, is_regression: bool, n_outputs: int | None
) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
    """Returns the support sets of a request, with zeros for padding, and their number of classes.

    Args:
        inputs: dict of tensors. `support_x` (or `support_images`, decoded) `[T, S, *x]`,
            `support_y` `[T, S]` or `[T, S, *y]`, `support_mask` `[T, S]`, and other inputs.
        is_regression: bool. Whether `support_y` holds values instead of labels.
        n_outputs: int or None. The number of classes, if the network fixes it.

    Returns:
        The arrays `support_x`, `support_y` and `support_mask` by these names; and n_way, a scalar
        int32 tensor, or None for regression.
    """
    inputs = with_equal_task_counts(inputs)
    name = name_in_request(inputs, "support_x")
    x, y, mask = (inputs[key] for key in (name, "support_y", "support_mask"))
    n_support = tf.shape(x)[1]
    is_equal = (tf.shape(y)[1] == n_support) & (tf.shape(mask)[1] == n_support)
    message = f"{name}, support_y and support_mask must have the same number of examples"
    x, y, mask = after_checks([(message, is_equal)], finite(name, x), y, mask)
    exists = mask > 0
    x, y, mask = after_checks(
        [
            ("support_mask must be 0 or 1", tf.reduce_all((mask == 0) | (mask == 1))),
            (
                f"{name} must hold at least one example for each task, with support_mask 1",
                tf.reduce_all(tf.reduce_any(exists, axis=1)),
            ),
        ],
        x,
        y,
        mask,
    )
    # Padding may hold any number, but the square of a large one would be infinite, and infinity
    # times a mask of 0 is NaN. So zeros replace it.
    x = tf.where(_expanded_like(exists, x), x, 0)
    if is_regression:
        y = finite("support_y", y)
        y = tf.where(_expanded_like(exists, y), y, 0)
        return {"support_x": x, "support_y": y, "support_mask": mask}, None
    y, n_way = _checked_labels(name, y, exists, n_outputs)
    return {"support_x": x, "support_y": y, "support_mask": mask}, n_way


def _checked_labels(
    name: str, y: tf.Tensor, exists: tf.Tensor, n_outputs: int | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the labels `[T, S]`, with zeros for padding, and the largest number of classes."""
    y = tf.where(exists, y, 0)
    n_support = tf.shape(y)[1]
    most_classes = n_support if n_outputs is None else tf.minimum(n_support, n_outputs)
    is_in_range = tf.reduce_all((y >= 0) & (y < tf.cast(most_classes, y.dtype)))
    limit = "" if n_outputs is None else f", and the network tells {n_outputs} classes apart"
    message = (
        "support_y must be labels from 0 to n_way - 1, and each class needs an example in "
        f"{name}{limit}"
    )
    (y,) = after_checks([(message, is_in_range)], y)
    members = tf.one_hot(tf.where(exists, y, -1), most_classes, dtype=tf.int32)
    has_example = tf.reduce_max(members, axis=1)  # [T, most_classes]
    largest_label = tf.cast(tf.reduce_max(y, axis=1), tf.int32)
    is_complete = tf.reduce_all(tf.reduce_sum(has_example, axis=1) == largest_label + 1)
    (y,) = after_checks([(message, is_complete)], y)
    return y, tf.reduce_max(largest_label) + 1


def _expanded_like(exists: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Returns `exists` `[T, S]` with trailing dimensions of size 1, up to the rank of x."""
    return tf.reshape(exists, tf.concat([tf.shape(exists), [1] * (x.shape.rank - 2)], axis=0))
