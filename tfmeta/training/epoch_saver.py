"""The callback that keeps a run's history and learners."""

from __future__ import annotations

import dataclasses
import time
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmeta import keras_internals
from tfmeta.files import write_text
from tfmeta.signals import Stopped
from tfmeta.training import checkpoint
from tfmeta.training.checkpoint import Progress
from tfmeta.training.resuming import score
from tfmeta.training.run_folder import BEST, CHECKPOINT, HISTORY, PREVIOUS, history_text

# More than the random draws of one epoch.
EPOCH_STRIDE = 1 << 40

WAY_OUT = "Lower the inner or the outer learning rate."


class EpochSaver(keras.callbacks.Callback):
    """Keeps a run's history, its best learner on validation, and checkpoints to resume from.

    After each epoch it writes a checkpoint, then the best learner, then the history. Each file is
    replaced as a whole. The checkpoint says all that the others must hold, so that wherever a run
    is killed, they can be written again.

    If a signal asks the run to stop, it writes a checkpoint after the current step, or after the
    validation if that has begun, and ends the run. A run that resumes within an epoch takes the
    steps that are left of it. It goes on with the states that Keras does not save: those of metrics
    and of seeds.

    If the optimizer keeps moving averages of the weights, they are what is validated and what the
    best learner has; training goes on with the weights.

    Args:
        folder: Path. The run folder.
        progress: Progress. How far the run is.
        steps_per_epoch: int. The steps of an epoch.
        is_regression: bool. Whether tasks are regression tasks.
        deferral: what `tfmeta.signals.deferred` yields. It tells whether a signal came.

    Attributes:
        progress: Progress. What is saved.
        step: int. The number of finished steps of the epoch.
    """

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        steps_per_epoch: int,
        is_regression: bool,
        deferral: Any,
    ) -> None:
        super().__init__()
        self.folder, self.progress, self.steps_per_epoch = folder, progress, steps_per_epoch
        self.is_regression, self.deferral = is_regression, deferral
        self.step = progress.step
        self._cuts_epoch_short = self._averaged = False

    # === Keras calls these ===

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter() - self.progress.seconds
        self.step = self.progress.step
        # Keras does not save the state of seeds, such as dropout's: derive it from the epoch.
        for i, variable in enumerate(self.model.non_trainable_variables):
            if keras_internals.is_seed_state(variable):
                keras_internals.set_seed_state(variable, i, epoch * EPOCH_STRIDE)
        if self.progress.step:
            for variable, state in zip(self._seeds(), self.progress.seeds, strict=True):
                keras_internals.set_seed_state(variable, *state)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 0 and self.progress.step:
            # Metrics have variables only now. They are sums, which the first step began anew.
            metrics = zip(self.model.metrics_variables, self.progress.metrics, strict=True)
            for variable, value in metrics:
                variable.assign_add(np.asarray(value, variable.dtype))
        self.step = self.progress.step + batch + 1
        self.deferral.unsaved = True
        if self.step < self.steps_per_epoch:
            if self.deferral.number is not None:
                self._save_within_epoch()
                raise Stopped(self.deferral.number)
        elif self.progress.step and not self.model.stop_training:
            # Keras cannot begin within an epoch: let it end the first one early.
            self.model.stop_training = self._cuts_epoch_short = True

    def on_test_begin(self, logs: Any = None) -> None:
        if self._cuts_epoch_short:
            self.model.stop_training = self._cuts_epoch_short = False
        self._averaged = keras_internals.swap_averages(self.model.optimizer)

    def on_test_end(self, logs: Any = None) -> None:
        if self._averaged:
            keras_internals.swap_averages(self.model.optimizer)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = {"epoch": epoch + 1, "seconds": time.perf_counter() - self._began, **(logs or {})}
        if not np.isfinite(row["loss"]):
            raise ValueError(f"The loss became {row['loss']}. {WAY_OUT}")
        self._check_weights()
        if score(row, self.is_regression) == -np.inf:
            warnings.warn(
                f"Validation after epoch {epoch + 1} gave a value that is not finite: its learner "
                "is the best only as long as there is no other.",
                RuntimeWarning,
                stacklevel=2,
            )
        progress = self.progress
        history = [*progress.history, row]
        best = progress.best_epoch
        if best is None or score(row, self.is_regression) > score(
            history[best - 1], self.is_regression
        ):
            best = epoch + 1
        self._save(
            Progress(
                progress.recipe,
                progress.data,
                epoch + 1,
                history=history,
                best_epoch=best,
                stopped=bool(self.model.stop_training),
            )
        )
        if best == epoch + 1:
            checkpoint.save_best(self.model, self.folder / BEST, self.progress)
        write_text(self.folder / HISTORY, history_text(history))
        self.deferral.unsaved = False
        if self.deferral.number is not None:
            raise Stopped(self.deferral.number)

    # === Saving ===

    def _check_weights(self) -> None:
        if not all(np.isfinite(weight).all() for weight in self.model.get_weights()):
            raise ValueError(f"A weight became infinite or NaN. {WAY_OUT}")

    def _save_within_epoch(self) -> None:
        self._check_weights()
        self._save(
            dataclasses.replace(
                self.progress,
                step=self.step,
                seconds=time.perf_counter() - self._began,
                metrics=_values(self.model.metrics_variables),
                seeds=_values(self._seeds()),
            )
        )

    def _save(self, progress: Progress) -> None:
        """Writes a checkpoint, and keeps the one before."""
        newest = self.folder / CHECKPOINT
        with checkpoint.saved(self.model, newest, progress):
            if newest.exists():
                newest.replace(self.folder / PREVIOUS)
        self.progress = progress

    def _seeds(self) -> list[keras.Variable]:
        variables = self.model.non_trainable_variables
        return [v for v in variables if keras_internals.is_seed_state(v)]


def _values(variables: list[keras.Variable]) -> list[Any]:
    return [keras.ops.convert_to_numpy(v).tolist() for v in variables]
