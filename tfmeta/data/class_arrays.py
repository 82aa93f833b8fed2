"""Checks of arrays of examples and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def checked_arrays(
    x: Any, y: Any, class_names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns examples and labels as arrays, after checks; see `ClassDataset.from_arrays`.

    Args:
        x: array `[N, *x]`. The examples.
        y: array `[N]` of integers or text. Their labels.
        class_names: sequence of str, or None. Names of the labels 0, 1, …. Defaults to None.

    Returns:
        The examples, uint8 or float32, and the labels.

    Raises:
        ValueError: If the lengths differ, the labels are neither integers nor text or have no name,
            or a value is uint16 or not finite as float32.
    """
    x, y = _as_array("x", x), _as_array("y", y)
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"Arrays (x, y) must be x [N, *x] and y [N]; got the shapes {x.shape} and {y.shape}."
        )
    if y.dtype == object and all(isinstance(label, str) for label in y):
        y = y.astype(str)
    is_text = y.dtype.kind in "UT" and class_names is None
    if not (is_text or np.issubdtype(y.dtype, np.integer)):
        raise ValueError(f"The labels y must be integers, or text; got {y.dtype}.")
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise ValueError(f"The examples x must be numbers; got {x.dtype}.")
    if x.dtype == np.uint16:
        raise ValueError(
            "The examples x are uint16. If they are pixels, divide them by the largest value "
            "that they can have (65535, or 4095 for 12 bits); else pass x.astype('float32')."
        )
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # Infinities are refused below.
            x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError(
            "The examples x must be finite; some are NaN, infinite or too large for float32."
        )
    if isinstance(class_names, str):
        raise ValueError(f"class_names must be a list of names; got the text {class_names!r}.")
    if class_names is not None and (y.min() < 0 or y.max() >= len(class_names)):
        raise ValueError(
            f"Labels must be from 0 to {len(class_names) - 1}, one per class name; "
            f"got {y.min()} to {y.max()}."
        )
    return x, y


def _as_array(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Arrays (x, y) must be x [N, *x] and y [N]; {name} is no array: {error}. If you have "
            "pairs for training and for the test, join them first."
        ) from error
