"""The callback from which an interrupted run resumes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta import keras_internals, signals
from tfmeta.callbacks import checkpoint
from tfmeta.callbacks.checkpoint import Progress
from tfmeta.callbacks.finding import describe, find, is_validated, score, writing
from tfmeta.callbacks.fit_arguments import check_arguments
from tfmeta.callbacks.interval import Interval
from tfmeta.callbacks.other_callbacks import fixed_learning_rate, tell_again
from tfmeta.callbacks.run import Run, run_of
from tfmeta.callbacks.run_files import BEST, CHECKPOINT, HISTORY, PREVIOUS, held, history_text
from tfmeta.data.pipeline import at_step, episode_index
from tfmeta.files import write_text
from tfmeta.learners import MetaLearner
from tfmeta.learners.graph_checks import NotFiniteError
from tfmeta.learners.task_reports import report_tasks
from tfmeta.signals import Stopped

WAY_OUT = "Lower the inner or the outer learning rate."

NOT_BEGUN = Progress({})
# What `stop_training` is while an epoch that began in its midst ends: true, but no one else's.
CUT_SHORT = "the rest of an epoch is done"


class Resume(keras.callbacks.Callback):
    """Saves a run of `fit`, and has it resume where it was interrupted.

    After each epoch it writes a checkpoint, then the best learner, then the history. Each file is
    replaced as a whole. The checkpoint says all that the others must hold, so that wherever a run
    is killed, they can be written again. `fit` with the same folder then takes up the weights, the
    optimizer, the seeds of dropout, the metrics, the history and the episodes, and ends bit for bit
    where it would have ended without the interruption.

    If the newest checkpoint is damaged, which its check sums tell, the one before is used, with a
    warning. A signal (Ctrl-C, SIGTERM or SIGHUP) has the run save after the current step and end; a
    second one ends it at once.

    If the optimizer keeps moving averages of the weights, they are what is validated and what the
    best learner has; training goes on with the weights.

    `epochs` of `fit` is the last epoch of the run, not a number of further ones. `EarlyStopping`
    and `ReduceLROnPlateau` go on as if nothing had happened; other callbacks begin anew.

    Args:
        folder: str or path. The folder of the run, of its own. In the end it holds
            `checkpoint.keras` and `previous.keras` (to resume from), `history.csv`, and, if there
            are validation data, `best.keras`, the best learner in validation: the one with the
            highest accuracy, or where that is not measured the lowest loss.
        checkpoint_every: int, str or None. Saves within epochs, too: every so many steps (100), or
            after so many seconds ("60s"). Defaults to None: after each epoch.
        facts: dict or None. Plain values that tell this run from others, beside the learner and
            its optimizer: say, the data and the options of its episodes. A folder with a run of
            other facts is refused. Defaults to None.

    Attributes:
        progress: Progress. What is saved.
        step: int. The number of finished steps of the epoch.

    Raises:
        ValueError: If `checkpoint_every` is neither. By `fit`: if the folder holds another run or
            nothing that can be resumed from, or another process trains into it; if something
            cannot be resumed, such as data that are no `tf.data.Dataset`; or if a weight is no
            longer finite, which is not saved.
        OSError: By `fit`, if a file cannot be written, such as on a full disk. The files before
            are kept.
        KeyboardInterrupt: By `fit`, after Ctrl-C.
        SystemExit: By `fit`, after SIGTERM or SIGHUP, with the exit code of shells, 128 + the
            signal's number.

    Warns:
        RuntimeWarning: By `fit`, if a file was lost or is broken, with what takes its place.

    Example:

    >>> import tempfile
    >>> import keras
    >>> import tfmeta
    >>> sinusoids = tfmeta.data.load("sinusoid")
    >>> network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> learner = tfmeta.MAML(network, inner_learning_rate=0.01, inner_loss="mse")
    >>> learner.compile("adam")
    >>> resume = tfmeta.callbacks.Resume(tempfile.mkdtemp(), checkpoint_every="60s")
    >>> history = learner.fit(
    ...     sinusoids.episodes(meta_batch_size=4), steps_per_epoch=2, epochs=3,
    ...     callbacks=[resume], verbose=0)
    >>> sorted(path.name for path in resume.folder.glob("*.*[sv]"))
    ['checkpoint.keras', 'history.csv', 'previous.keras']
    >>> resume.progress.epoch
    3
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        checkpoint_every: int | str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.facts = Path(folder), dict(facts or {})
        self.checkpoint_every = checkpoint_every
        self._interval = None if checkpoint_every is None else Interval(checkpoint_every)
        self.progress = NOT_BEGUN
        self.step = 0

    @contextlib.contextmanager
    def around_fit(
        self, learner: MetaLearner, arguments: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Encloses `fit` of a learner, which calls this.

        Args:
            learner: MetaLearner. The learner, compiled.
            arguments: dict. What `fit` was given, by name.

        Yields:
            What it is to be given instead, to go on where the run is.
        """
        others = [c for c in arguments.get("callbacks") or () if c is not self]
        check_arguments(arguments, others)
        self._others, self._first_rate = others, fixed_learning_rate(learner.optimizer)
        self._steps_per_epoch, epochs = arguments["steps_per_epoch"], arguments.get("epochs", 1)
        self._run = self._make_run(learner, self._steps_per_epoch)
        with self._hold():
            progress = self.progress = find(self._run, self.folder)
            self.step = progress.step
            if progress.position > (0, 0) and arguments.get("verbose", "auto") != 0:
                print(f"Resuming {self.folder} after {progress.text(epochs)}.")
            is_over = progress.stopped or progress.epoch >= epochs
            if progress.position > (0, 0):
                checkpoint.build(learner, arguments["x"])
            try:
                with signals.deferred() as self._deferral:
                    yield {
                        **arguments,
                        "x": at_step(
                            arguments["x"], progress.epoch * self._steps_per_epoch + progress.step
                        ),
                        "initial_epoch": epochs if is_over else progress.epoch,
                        # It comes last, to learn what others decide, such as to stop.
                        "callbacks": [*others, self],
                    }
            except ValueError as error:
                where = f"epoch {self.progress.epoch + 1}, after {self.step} of its steps"
                found = ""
                if isinstance(error, NotFiniteError):
                    found = self._trouble(learner, arguments["x"])
                raise ValueError(f"In {where}: {error} {found}{describe(self.folder)}") from error
            except Stopped as stop:
                raise self._ending(stop) from stop

    # === Keras calls these ===

    def on_train_begin(self, logs: Any = None) -> None:
        if not isinstance(self.model, MetaLearner) or self.progress is NOT_BEGUN:
            raise TypeError(
                "Resume is for fit of tfmeta's learners, which begins with the episodes that are "
                f"left; got a {type(self.model).__name__}."
            )
        if self.progress.position > (0, 0):
            checkpoint.load_into(self.model, self.folder / CHECKPOINT)
        self._has_told, self._averaged = False, False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self._has_told:
            # Now all callbacks have begun.
            self._has_told = True
            tell_again(self._others, self.model.optimizer, self._first_rate, self.progress.history)
            self._fill_history()
        self._began = time.perf_counter() - self.progress.seconds
        self.step = self._first_step = self.progress.step
        self._lacks_metrics = bool(self._first_step)
        if self._interval is not None:
            self._interval.begin(self.step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._lacks_metrics:
            self._lacks_metrics = False
            # Metrics have variables only now. They are sums, which the first step began anew.
            metrics = zip(self.model.metrics_variables, self.progress.metrics, strict=True)
            for variable, value in metrics:
                variable.assign_add(np.asarray(value, variable.dtype))
        self.step = self._first_step + batch + 1
        self._deferral.unsaved = True
        if self.step < self._steps_per_epoch:
            if self._deferral.number is not None:
                self._save_within_epoch()
                raise Stopped(self._deferral.number)
            if self._interval is not None and self._interval.is_over(self.step):
                self._save_within_epoch()
                self._interval.begin(self.step)
        elif self._first_step and not self.model.stop_training:
            # Keras cannot begin within an epoch: let it end the first one early.
            self.model.stop_training = CUT_SHORT

    def on_test_begin(self, logs: Any = None) -> None:
        self._end_cut_epoch()
        self._averaged = keras_internals.swap_averages(self.model.optimizer)

    def on_test_end(self, logs: Any = None) -> None:
        if self._averaged:
            keras_internals.swap_averages(self.model.optimizer)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._end_cut_epoch()
        row = {"epoch": epoch + 1, "seconds": time.perf_counter() - self._began, **(logs or {})}
        if not np.isfinite(row["loss"]):
            raise ValueError(f"The loss became {row['loss']}. {WAY_OUT}")
        self._check_weights()
        progress, history = self.progress, [*self.progress.history, row]
        best = self._best_epoch(history)
        self._save(
            Progress(
                progress.recipe,
                progress.data,
                epoch + 1,
                history=history,
                best_epoch=best,
                stopped=bool(self.model.stop_training),
                seeds=_values(checkpoint.seeds_of(self.model)),
            )
        )
        with writing(self.folder):
            if best == epoch + 1:
                checkpoint.save_best(self.model, self.folder / BEST, self.progress)
            write_text(self.folder / HISTORY, history_text(history))
        self._deferral.unsaved = False
        if self._deferral.number is not None:
            raise Stopped(self._deferral.number)

    def on_train_end(self, logs: Any = None) -> None:
        self._fill_history()

    # === Beginning ===

    def _make_run(self, learner: MetaLearner, steps_per_epoch: int) -> Run:
        return run_of(learner, steps_per_epoch, self.facts)

    def _hold(self) -> contextlib.AbstractContextManager[None]:
        return held(self.folder)

    def _ending(self, stop: Stopped) -> BaseException:
        """Returns the exception by which `fit` ends after a signal."""
        text = f"{describe(self.folder)} To go on, call fit again in the same way."
        handler = signal.getsignal(stop.number)
        if handler is signal.default_int_handler:
            # Not a subclass: only after this does Python end a script as shells expect it.
            return KeyboardInterrupt(text)
        if handler is signal.SIG_DFL:
            print(f"tfmeta: {signals.text_of(stop.number)}. {text}", file=sys.stderr)
            return SystemExit(stop.exit_code)
        return Stopped(stop.number, text)

    def _trouble(self, learner: MetaLearner, data: tf.data.Dataset) -> str:
        """Says which task of the step that was not taken is not finite, and where."""
        if learner.steps_per_execution > 1:
            return ""  # Some of the steps of an execution may have been taken.
        step = self.progress.epoch * self._steps_per_epoch + self.step
        (meta_batch,) = at_step(data, step).take(1)
        for report in report_tasks(learner, meta_batch):
            if report.trouble is not None:
                index = episode_index(data, step, report.task)
                named = "" if index is None else f" (episode {index})"
                return f"In task {report.task} of its meta-batch{named}, {report.trouble}. "
        return ""

    def _fill_history(self) -> None:
        """Gives what `fit` returns the epochs before this call of it."""
        returned = self.model.history
        missing = [row for row in self.progress.history if row["epoch"] - 1 not in returned.epoch]
        for row in reversed(missing):
            returned.epoch.insert(0, int(row["epoch"]) - 1)
            for name, value in row.items():
                if name not in ("epoch", "seconds"):
                    returned.history.setdefault(name, []).insert(0, value)

    def _end_cut_epoch(self) -> None:
        if self.model.stop_training == CUT_SHORT:
            self.model.stop_training = False

    # === Saving ===

    def _best_epoch(self, history: list[dict[str, float]]) -> int | None:
        """Returns the epoch, from 1, whose learner is the best, the newest included."""
        row, best = history[-1], self.progress.best_epoch
        if not is_validated(row):
            return best
        value = score(row, self._run.is_regression)
        if value == -np.inf:
            warnings.warn(
                f"Validation after epoch {len(history)} gave a value that is not finite: its "
                "learner is the best only as long as there is no other.",
                RuntimeWarning,
                stacklevel=2,
            )
        is_best = best is None or value > score(history[best - 1], self._run.is_regression)
        return len(history) if is_best else best

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
                seeds=_values(checkpoint.seeds_of(self.model)),
            )
        )

    def _save(self, progress: Progress) -> None:
        """Writes a checkpoint, and keeps the one before."""
        newest = self.folder / CHECKPOINT
        with writing(self.folder), checkpoint.saved(self.model, newest, progress):
            if newest.exists():
                newest.replace(self.folder / PREVIOUS)
        self.progress = progress


def _values(variables: list[keras.Variable]) -> list[Any]:
    return [keras.ops.convert_to_numpy(v).tolist() for v in variables]
