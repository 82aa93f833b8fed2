"""Brings a recipe's callbacks back to the state that they had when a run was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


class RestoredCallbacks(keras.callbacks.CallbackList):
    """The callbacks of a recipe, which go on where an interrupted run left them.

    Keras saves no state of callbacks. Theirs depends on the history alone, so they are told of the
    epochs before again.

    Args:
        callbacks: sequence of keras.callbacks.Callback. Callbacks whose state depends on the
            history alone.
        learner: keras.Model. The learner, as it was after the epochs before.
        first_learning_rate: float or None. The outer learning rate at the beginning of the run;
            None if it follows a schedule.
        history: sequence of dict. Rows of the epochs before.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        learner: keras.Model,
        first_learning_rate: float | None,
        history: Sequence[dict[str, float]],
    ) -> None:
        super().__init__(list(callbacks), model=learner)
        self.first_learning_rate, self.history = first_learning_rate, list(history)

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._restore()

    def _restore(self) -> None:
        optimizer = self.model.optimizer
        learning_rate = None
        if self.history and self.first_learning_rate is not None:
            # A callback that lowers it does so again.
            learning_rate = float(optimizer.learning_rate)
            optimizer.learning_rate = self.first_learning_rate
        for callback in self.callbacks if self.history else ():
            callback.on_train_begin()
            for row in self.history:
                callback.on_epoch_end(int(row["epoch"]) - 1, dict(row))
        if learning_rate is not None:
            optimizer.learning_rate = learning_rate


def fixed_learning_rate(learner: keras.Model) -> float | None:
    """Returns the outer learning rate of a compiled learner; None if it follows a schedule."""
    rate = learner.optimizer.learning_rate
    return float(rate) if isinstance(rate, keras.Variable) else None
