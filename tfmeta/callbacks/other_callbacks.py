"""Brings the callbacks of a run back to the state that they had when it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence

import keras

# Keras saves no state of callbacks. That of these depends on the history alone.
RETOLD = (keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau)


def tell_again(
    callbacks: Sequence[keras.callbacks.Callback],
    optimizer: keras.optimizers.Optimizer,
    first_learning_rate: float | None,
    history: Sequence[dict[str, float]],
) -> None:
    """Tells callbacks whose state depends on the history of the epochs before.

    Args:
        callbacks: sequence of keras.callbacks.Callback. The callbacks of a run.
        optimizer: keras.optimizers.Optimizer. The outer optimizer, as it was after these epochs.
        first_learning_rate: float or None. The outer learning rate at the beginning of the run;
            None if it follows a schedule.
        history: sequence of dict. The rows of these epochs.
    """
    if not history:
        return
    learning_rate = None
    if first_learning_rate is not None:
        # A callback that lowers it does so again.
        learning_rate = float(optimizer.learning_rate)
        optimizer.learning_rate = first_learning_rate
    for callback in callbacks:
        if isinstance(callback, RETOLD):
            callback.on_train_begin()
            for row in history:
                callback.on_epoch_end(int(row["epoch"]) - 1, dict(row))
    if learning_rate is not None:
        optimizer.learning_rate = learning_rate


def fixed_learning_rate(optimizer: keras.optimizers.Optimizer) -> float | None:
    """Returns the learning rate of an optimizer; None if it follows a schedule."""
    rate = optimizer.learning_rate
    return float(rate) if isinstance(rate, keras.Variable) else None
