"""`Resume` for runs of recipes."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.callbacks import Resume
from tfmeta.callbacks.run import Run
from tfmeta.learners import MetaLearner
from tfmeta.recipes.plan import Plan
from tfmeta.training.recipe_run import recipe_run

# More than the random draws of one epoch.
EPOCH_STRIDE = 1 << 40


class RecipeResume(Resume):
    """`Resume` for the run of a recipe, in a folder that the caller holds.

    A recipe says all about its run, so that two runs of it draw the same dropout masks.

    Args:
        plan: Plan. What is trained.
        folder: Path. The run folder, held.
        checkpoint_every: int, str or None. As in `Resume`. Defaults to None.
    """

    def __init__(self, plan: Plan, folder: Path, checkpoint_every: int | str | None = None) -> None:
        super().__init__(folder, checkpoint_every)
        self.plan = plan

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if not self.progress.step:
            begin_seeds(self.model, epoch)

    def _make_run(self, learner: MetaLearner, steps_per_epoch: int) -> Run:
        return recipe_run(self.plan)

    def _hold(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def _trouble(self, learner: MetaLearner, data: tf.data.Dataset) -> str:
        step = self.progress.epoch * self._steps_per_epoch + self.step + 1
        look = f"`tfmeta replay {shlex.quote(str(self.folder))} --step {step}` shows its tasks. "
        return super()._trouble(learner, data) + look


def begin_seeds(learner: MetaLearner, epoch: int) -> None:
    """Sets the seeds of dropout and its like to those with which an epoch begins.

    Args:
        learner: MetaLearner. The learner.
        epoch: int. The epoch, from 0.
    """
    for i, variable in enumerate(learner.non_trainable_variables):
        if keras_internals.is_seed_state(variable):
            keras_internals.set_seed_state(variable, i, epoch * EPOCH_STRIDE)
