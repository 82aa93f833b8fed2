"""Checks of arguments that several packages share."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Raises a ValueError unless `value` is an integer of at least `minimum`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be an integer ≥ {minimum}; got {value!r}.")


def check_positive(name: str, value: Any) -> None:
    """Raises a ValueError unless `value` is a number above 0."""
    if not isinstance(value, numbers.Real) or not float(value) > 0:
        raise ValueError(f"{name} must be > 0; got {value!r}.")


def check_in_range(name: str, value: Any, least: float, below: float = math.inf) -> None:
    """Raises a ValueError unless `value` is a number from `least` to less than `below`."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not least <= float(value) < below:
        end = "" if below == math.inf else f" and < {below:g}"
        raise ValueError(f"{name} must be a finite number ≥ {least:g}{end}; got {value!r}.")


def check_one_of(name: str, value: Any, known: Sequence[str]) -> None:
    """Raises a ValueError unless `value` is one of the names in `known`."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")


def check_model(name: str, model: Any) -> None:
    """Raises a ValueError unless `model` is a Keras model."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"{name} must be a keras.Model; got {type(model).__name__}.")
