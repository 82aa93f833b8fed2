"""Checks of a learner's inputs: meta-batches, and support sets of single tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.graph_checks import Check
from tfmeta.learners.output_kinds import compares_equal_shapes

REQUIRED_INPUTS = ("support_x", "support_y", "query_x")
OPTIONAL_INPUTS = ("support_mask", "query_mask")
UNLABELLED_INPUTS = ("unlabelled_x", "unlabelled_mask")
MASKS = {
    "support_mask": "support_x",
    "query_mask": "query_x",
    "unlabelled_mask": "unlabelled_x",
}

EXPECTED = (
    "a dictionary with support_x [T, S, *x], support_y [T, S] and query_x [T, Q, *x], and "
    "optionally support_mask [T, S] and query_mask [T, Q]"
)


def checked_inputs(
    inputs: Mapping[str, Any], takes_unlabelled: bool = False
) -> dict[str, tf.Tensor]:
    """Returns the inputs of a learner as tensors, after the checks that static shapes allow.

    Args:
        inputs: dict. The inputs of a meta-batch.
        takes_unlabelled: bool. Whether the learner takes unlabelled examples. Defaults to False.

    Raises:
        ValueError: If an input is missing or unknown, or shapes do not fit together.
    """
    if not isinstance(inputs, Mapping):
        raise ValueError(f"A meta-learner takes {EXPECTED}; got {type(inputs).__name__}.")
    missing = [name for name in REQUIRED_INPUTS if name not in inputs]
    known = REQUIRED_INPUTS + OPTIONAL_INPUTS + (UNLABELLED_INPUTS if takes_unlabelled else ())
    unknown = [name for name in inputs if name not in known]
    if not takes_unlabelled and set(unknown) & set(UNLABELLED_INPUTS):
        raise ValueError(
            "This learner learns nothing from unlabelled examples: leave unlabelled_x out of the "
            "episodes, or take tfmeta.MetaGANMAML or tfmeta.MetaGANRelationNetwork."
        )
    if "unlabelled_mask" in inputs and "unlabelled_x" not in inputs:
        missing.append("unlabelled_x")
    if missing or unknown:
        raise ValueError(
            f"A meta-learner takes {EXPECTED}; got {sorted(inputs)} "
            f"(missing: {missing}, unknown: {unknown})."
        )
    tensors = {
        name: _one_tensor(name, value) for name, value in inputs.items() if value is not None
    }
    ranks = {name: tensor.shape.rank for name, tensor in tensors.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if ranks[name]}
    for name, of in MASKS.items():
        if ranks.get(name) not in (None, 2):
            raise ValueError(
                f"{name} must have two axes, the first two of {of}: one number per example; got "
                f"the shapes {shapes}."
            )
    if None in ranks.values():
        return tensors
    if ranks["support_x"] < 3 or ranks["support_x"] != ranks["query_x"] or ranks["support_y"] < 2:
        raise ValueError(
            f"A meta-learner takes {EXPECTED}; got {shapes}. A single task needs a leading "
            "dimension of 1: x[None]."
        )
    for first, second, axes in (
        ("support_x", "query_x", slice(2, None)),
        ("support_x", "support_y", slice(0, 2)),
        ("support_x", "support_mask", slice(0, 2)),
        ("query_x", "query_mask", slice(0, 2)),
        ("support_x", "unlabelled_x", slice(2, None)),
        ("unlabelled_x", "unlabelled_mask", slice(0, 2)),
    ):
        if {first, second} <= tensors.keys() and not tensors[first].shape[axes].is_compatible_with(
            tensors[second].shape[axes]
        ):
            raise ValueError(f"{first} and {second} do not fit together: got the shapes {shapes}.")
    return tensors


def _one_tensor(name: str, value: Any) -> tf.Tensor:
    if not isinstance(value, Mapping | tf.RaggedTensor):
        try:
            return tf.convert_to_tensor(value)
        except (TypeError, ValueError, tf.errors.InvalidArgumentError):
            pass
    raise ValueError(
        f"{name} must be one tensor, for a learner's network has one input; got a "
        f"{type(value).__name__}."
    )


def one_array(name: str, value: Any) -> np.ndarray:
    """Returns a value as an array.

    Args:
        name: str. The value's name in an error.
        value: array-like. The value.

    Raises:
        ValueError: If it is no single array of numbers, but a structure of several, for example.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # Lists of different lengths.
        array = np.asarray(None)
    if array.dtype == object:
        raise ValueError(
            f"{name} must be one array of numbers, for a learner's network has one input; got a "
            f"{type(value).__name__}."
        )
    return array


# === Labels ===


def label_checks(
    name: str, labels: tf.Tensor, mask: tf.Tensor | None, limit: int | tf.Tensor, why: str
) -> list[Check]:
    """Returns the checks of a meta-batch's labels, for `require`.

    Args:
        name: str. The labels' name.
        labels: tf.Tensor `[T, N]`. Labels of any type.
        mask: tf.Tensor `[T, N]` or None. 0 for padding.
        limit: int or scalar tf.Tensor. What labels must be less than.
        why: str. The reason of the limit.
    """
    if mask is not None:
        labels = tf.where(tf.cast(mask, tf.bool), labels, tf.zeros_like(labels))
    # Compare before any cast: a large integer would become a small one.
    lowest, highest = tf.reduce_min(labels), tf.reduce_max(labels)
    upper = limit - 1 if isinstance(limit, int) else "n_way - 1"
    message = f"The labels {name} must be from 0 to {upper}, for {why}"
    return [
        Check(lowest >= tf.zeros_like(lowest), message, lowest),
        Check(tf.cast(highest, tf.float64) < tf.cast(limit, tf.float64), message, highest),
    ]


def check_labels(support_y: np.ndarray, n_way: int | None = None) -> None:
    """Raises a ValueError unless `support_y` holds labels of classes.

    Args:
        support_y: np.ndarray. Should be integers `[S]` from 0 to n_way - 1.
        n_way: int or None. Number of classes; None if the labels say it, and each class must have
            an example. Defaults to None.
    """
    if support_y.ndim != 1 or not np.issubdtype(support_y.dtype, np.integer):
        raise ValueError(
            f"support_y must be integer labels [S]; got {support_y.dtype} {support_y.shape}."
        )
    labels = [int(label) for label in np.unique(support_y)]
    if labels[0] < 0 or (n_way is not None and labels[-1] >= n_way):
        top = "" if n_way is None else f" to {n_way - 1}, for the network has {n_way} outputs"
        raise ValueError(f"Labels must be from 0{top}; got {labels[0]} to {labels[-1]}.")
    if n_way is None and len(labels) <= labels[-1]:
        known = set(labels)
        # Among so many numbers at least five are missing, or all that are. Do not list all others.
        missing = [k for k in range(min(labels[-1], len(labels) + 5)) if k not in known][:5]
        raise ValueError(
            f"Every class from 0 to {labels[-1]} needs a support example; none has the "
            f"label{'s' if labels[-1] + 1 - len(labels) > 1 else ''} "
            f"{', '.join(map(str, missing))}."
        )


def check_binary_labels(support_y: np.ndarray) -> None:
    """Raises a ValueError unless `support_y`, `[S]` or `[S, 1]`, holds nothing but 0 and 1."""
    if support_y.shape[1:] not in ((), (1,)) or not np.isin(support_y, (0, 1)).all():
        raise ValueError(
            "Labels must be 0 or 1, one for each example, for the network has one output for two "
            f"classes; got {support_y.dtype} {support_y.shape} from {support_y.min()} to "
            f"{support_y.max()}."
        )


def check_one_hot_labels(support_y: np.ndarray, n_way: int) -> None:
    """Raises a ValueError unless `support_y` holds labels `[S]`, or one-hot ones `[S, n_way]`."""
    if support_y.ndim == 1:
        check_labels(support_y, n_way)
    elif support_y.shape[1:] != (n_way,) or not np.allclose(support_y.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            f"support_y must be labels [S], or one-hot vectors [S, {n_way}], which sum to 1; got "
            f"{support_y.dtype} {support_y.shape}."
        )


def checked_class_names(
    names: Sequence[str] | None, kind: str, n_known: int, n_outputs: int | None
) -> list[str] | None:
    """Returns the names of a task's classes as a list.

    Args:
        names: sequence of str or None. The names.
        kind: str. The `OutputKind` of the task's predictions.
        n_known: int. How many classes the support set has: the largest label plus one.
        n_outputs: int or None. How many classes the network tells apart, if that is fixed.

    Raises:
        ValueError: If they are no list of strings, or too few or too many.
    """
    if names is None:
        return None
    if kind == "values":
        raise ValueError("class_names are for classifiers; this learner predicts values.")
    checked = [] if isinstance(names, str) else list(names)
    most = n_known if n_outputs is None else n_outputs
    if not all(isinstance(name, str) for name in checked) or not n_known <= len(checked) <= most:
        count = str(most) if most == n_known else f"{n_known} to {most}"
        raise ValueError(
            f"class_names must be a list of {count} strings, one for each class; got {names!r}."
        )
    return checked


# === Targets ===


def check_targets(name: str, loss: Any, y: Any, predictions: Any) -> None:
    """Raises a ValueError for targets that one of Keras's losses would broadcast.

    Args:
        name: str. The targets' name.
        loss: str, function or keras.losses.Loss. The loss; others than Keras's are not checked.
        y: tensor. The targets. No structures are checked.
        predictions: tensor of the same rank, or one axis more that has the size 1.
    """
    if not (isinstance(loss, str | keras.losses.Loss) or callable(loss)):
        return
    if not compares_equal_shapes(keras.losses.get(loss)):
        return
    expected, shape = (tf.TensorShape(getattr(t, "shape", None)) for t in (predictions, y))
    if expected.rank is None or shape.rank is None:
        return
    if shape.rank == expected.rank - 1 and expected[-1] == 1:
        expected = expected[:-1]
    if not shape.is_compatible_with(expected):
        raise ValueError(
            f"{name} must have the predictions' shape, {tuple(expected)}, as the loss compares "
            f"them; got {tuple(shape)}."
        )


# === Support sets ===


def check_support(support_x: np.ndarray, support_y: np.ndarray) -> None:
    """Raises a ValueError for a support set that no learner can learn from."""
    if support_x.ndim < 2 or len(support_x) == 0:
        raise ValueError(
            f"support_x must be [S, *x] with at least one example; got shape {support_x.shape}."
        )
    if support_y.ndim < 1 or len(support_x) != len(support_y):
        raise ValueError(
            "support_x and support_y must have one row per example; got the shapes "
            f"{support_x.shape} and {support_y.shape}."
        )
    for name, array in (("support_x", support_x), ("support_y", support_y)):
        if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
            raise ValueError(f"{name} must hold numbers; got dtype {array.dtype}.")
        bad = np.size(array) - int(np.isfinite(array).sum())
        if bad:
            raise ValueError(
                f"{name} must be finite; {bad} of its {array.size} values are NaN or infinite."
            )


def takes_integers(network: Any) -> bool:
    """Returns whether a network's first input is of integers.

    Args:
        network: keras.Model. Any model.
    """
    try:
        inputs = keras.tree.flatten(network.inputs)
    except (AttributeError, ValueError):  # Models of other kinds, and those not built yet.
        return False
    return bool(inputs) and not tf.as_dtype(inputs[0].dtype).is_floating


def check_no_pixels(name: str, dtype: Any, network: Any) -> None:
    """Raises a ValueError for pixels as integers, which `tfmeta.data.load` would have scaled.

    Args:
        name: str. What messages call the examples.
        dtype: str or dtype. The type of the examples.
        network: keras.Model. What they are meant for. One that takes integers may get any.
    """
    if tf.as_dtype(dtype) in (tf.uint8, tf.uint16) and not takes_integers(network):
        raise ValueError(
            f"{name} must be floats; got {tf.as_dtype(dtype).name}. Pixels are from 0 to 1, as "
            f"tfmeta.data.load scales them: pass {name} / 255 (for 8 bits), or "
            f"{name}.astype('float32') if these are no pixels."
        )
