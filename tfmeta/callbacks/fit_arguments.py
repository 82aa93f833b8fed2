"""Checks that a call of `fit` can resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf


def check_arguments(arguments: Mapping[str, Any], callbacks: Sequence[Any]) -> None:
    """Raises a ValueError if a run of `fit` with these arguments could not resume.

    Args:
        arguments: mapping. The arguments by name.
        callbacks: sequence of keras.callbacks.Callback. Its callbacks but for `Resume`.
    """
    if not isinstance(arguments.get("x"), tf.data.Dataset):
        raise ValueError(
            "Resume needs episodes as a tf.data.Dataset, to begin with those that are left; got a "
            f"{type(arguments.get('x')).__name__}."
        )
    if not isinstance(arguments.get("steps_per_epoch"), int):
        raise ValueError("Resume needs steps_per_epoch, to know which episodes are left.")
    if arguments.get("initial_epoch"):
        raise ValueError("Resume finds the epoch to begin with: leave initial_epoch out.")
    _check_callbacks(callbacks)


def _check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raises a ValueError for a callback that would do something else once a run has resumed."""
    for callback in callbacks:
        name, why = type(callback).__name__, None
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            why = "Resume does what it does"
        elif isinstance(callback, keras.callbacks.SwapEMAWeights):
            why = "Resume has the moving averages validated and saved"
        elif getattr(callback, "restore_best_weights", False):
            name, why = f"{name}(restore_best_weights=True)", "Resume keeps the best learner"
        elif getattr(callback, "save_best_only", False):
            name, why = f"{name}(save_best_only=True)", "Resume keeps the best learner"
        if why is not None:
            raise ValueError(f"Leave {name} out: {why}, also when a run has resumed.")
