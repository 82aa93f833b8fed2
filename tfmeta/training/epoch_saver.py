"""The callback that keeps a run's history and learners."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmeta import keras_internals
from tfmeta.files import replacing, write_text
from tfmeta.learners import MetaLearner
from tfmeta.training.run_folder import BEST, CHECKPOINT, HISTORY

# More than an epoch's draws of a seed.
EPOCH_STRIDE = 1 << 40


class EpochSaver(keras.callbacks.Callback):
    """Keeps a run's history, its best learner on validation, and a checkpoint to resume from.

    After each epoch it writes the best learner, then the history, then the checkpoint. Each file is
    replaced as a whole. The checkpoint's optimizer says how many epochs are done: wherever a run is
    killed, it resumes from the last checkpoint and writes the same files again.

    Args:
        folder: Path. The run folder.
        monitor: str. The metric of validation that decides which learner is best.
        higher_is_better: bool. Whether higher values of the metric are better.
        history: list of dict. Rows of the epochs before.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        higher_is_better: bool,
        history: list[dict[str, float]],
    ) -> None:
        super().__init__()
        self.folder, self.monitor, self.higher_is_better = folder, monitor, higher_is_better
        self.history = history

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()
        # Keras does not save the state of seeds (dropout's): derive it from the epoch.
        for i, variable in enumerate(self.model.non_trainable_variables):
            if keras_internals.is_seed_state(variable):
                keras_internals.set_seed_state(variable, i, epoch * EPOCH_STRIDE)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = {"epoch": epoch + 1, "seconds": time.perf_counter() - self._began, **(logs or {})}
        sign = 1 if self.higher_is_better else -1
        scores = [sign * r[self.monitor] for r in [*self.history, row]]
        # Validation may diverge for an epoch, and max() would return its NaN.
        best = np.nanmax([-np.inf, *scores[:-1]])
        if not np.isfinite(row["loss"]):
            raise ValueError(
                f"The loss became {row['loss']} in epoch {epoch + 1}. Lower the inner or the outer "
                "learning rate; the last checkpoint is kept."
            )
        if scores[-1] > best or not self.history:
            save(self.model, self.folder / BEST)
        self.history.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(row))
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.folder / HISTORY, text.getvalue())
        save(self.model, self.folder / CHECKPOINT)


def save(learner: MetaLearner, path: Path) -> None:
    """Saves a learner, replacing the file as a whole."""
    with replacing(path) as temporary:
        learner.save(temporary)
