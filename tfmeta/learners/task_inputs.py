"""Checks of a learner's inputs: meta-batches, and support sets of single tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

REQUIRED_INPUTS = ("support_x", "support_y", "query_x")
OPTIONAL_INPUTS = ("support_mask", "query_mask")
MASKS = {"support_mask": "support_x", "query_mask": "query_x"}

EXPECTED = (
    "a dictionary with support_x [T, S, *x], support_y [T, S] and query_x [T, Q, *x], and "
    "optionally support_mask [T, S] and query_mask [T, Q]"
)


def checked_inputs(inputs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Returns the inputs of a learner as tensors, after the checks that static shapes allow.

    Raises:
        ValueError: If an input is missing or unknown, or shapes do not fit together.
    """
    if not isinstance(inputs, Mapping):
        raise ValueError(f"A meta-learner takes {EXPECTED}; got {type(inputs).__name__}.")
    missing = [name for name in REQUIRED_INPUTS if name not in inputs]
    unknown = [name for name in inputs if name not in REQUIRED_INPUTS + OPTIONAL_INPUTS]
    if missing or unknown:
        raise ValueError(
            f"A meta-learner takes {EXPECTED}; got {sorted(inputs)} "
            f"(missing: {missing}, unknown: {unknown})."
        )
    tensors = {
        name: tf.convert_to_tensor(value) for name, value in inputs.items() if value is not None
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
    ):
        if second in tensors and not tensors[first].shape[axes].is_compatible_with(
            tensors[second].shape[axes]
        ):
            raise ValueError(f"{first} and {second} do not fit together: got the shapes {shapes}.")
    return tensors


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
    if support_y.min() < 0 or (n_way is not None and support_y.max() >= n_way):
        top = "" if n_way is None else f" to {n_way - 1}, for the network has {n_way} outputs"
        raise ValueError(f"Labels must be from 0{top}; got {support_y.min()} to {support_y.max()}.")
    missing = sorted(set(range(support_y.max() + 1)) - set(support_y.tolist()))
    if n_way is None and missing:
        raise ValueError(
            f"Every class from 0 to {support_y.max()} needs a support example; none has the "
            f"label{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing[:5]))}."
        )


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


def check_no_pixels(name: str, dtype: Any, network: Any) -> None:
    """Raises a ValueError for pixels as integers, which `tfmeta.data.load` would have scaled.

    Args:
        name: str. What messages call the examples.
        dtype: str or dtype. The type of the examples.
        network: keras.Model. What they are meant for. One that takes integers may get any.
    """
    try:
        inputs = keras.tree.flatten(network.inputs)
    except (AttributeError, ValueError):  # Models of other kinds, and those not built yet.
        inputs = []
    takes_integers = bool(inputs) and not tf.as_dtype(inputs[0].dtype).is_floating
    if tf.as_dtype(dtype) in (tf.uint8, tf.uint16) and not takes_integers:
        raise ValueError(
            f"{name} must be floats; got {tf.as_dtype(dtype).name}. Pixels are from 0 to 1, as "
            f"tfmeta.data.load scales them: pass {name} / 255 (for 8 bits), or "
            f"{name}.astype('float32') if these are no pixels."
        )
