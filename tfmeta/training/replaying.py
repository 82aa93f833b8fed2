"""Looks at one step of a run again, task by task."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from tfmeta.callbacks import checkpoint
from tfmeta.callbacks.checkpoint import BrokenFileError, Progress
from tfmeta.callbacks.run_files import CHECKPOINT, PREVIOUS
from tfmeta.data.pipeline import at_step, episode_index
from tfmeta.learners.graph_checks import in_one_sentence
from tfmeta.learners.task_reports import TaskReport, report_tasks
from tfmeta.recipes import Recipe
from tfmeta.recipes.plan import Plan, prepare
from tfmeta.training.details import check_same_data, data_facts
from tfmeta.training.recipe_resume import begin_seeds
from tfmeta.training.run_folder import RECIPE, is_recipe


class Replay(NamedTuple):
    """A step of a run, looked at again.

    Attributes:
        begun_from: str. The file whose learner it began with; "" if that was the recipe's own.
        n_steps: int. The steps that were taken again before it.
        reports: list of TaskReport. The tasks of its meta-batch.
        episodes: list of int. Their indices, by which `start=` of `episodes(...)` finds them.
    """

    begun_from: str
    n_steps: int
    reports: list[TaskReport]
    episodes: list[int | None]


def replay(
    folder: str | os.PathLike[str], step: int, data_dir: str | os.PathLike[str] | None = None
) -> Replay:
    """Looks at a step of a run task by task, beginning with the checkpoint before it.

    Nothing is written.

    Args:
        folder: str or path. The run folder.
        step: int. The step, counted from 1 through all epochs.
        data_dir: str or path. TensorFlow Datasets' directory. Defaults to None, its own default.

    Returns:
        What the tasks of the step's meta-batch are.

    Raises:
        ValueError: If it is no run folder, the run has no such step, the data changed, or a step
            before it is not finite.
    """
    run = Path(folder)
    if not (run / RECIPE).is_file():
        raise ValueError(f"{folder} is no run folder: it has no {RECIPE}.")
    recipe = Recipe.load(run / RECIPE)
    training = recipe.training
    n_steps = (training.epochs or 0) * training.steps_per_epoch
    if not 1 <= step <= n_steps:
        raise ValueError(
            f"The steps of {folder} are 1 – {n_steps} ({training.epochs} epochs of "
            f"{training.steps_per_epoch}); got step {step}."
        )
    plan = prepare(recipe, data_dir)
    learner = plan.learner
    name, progress = _newest_before(run, recipe, step)
    done = progress.epoch * training.steps_per_epoch + progress.step
    if name:
        check_same_data(run, progress.data, data_facts(plan))
        learner.optimizer.build(learner.outer_variables)
        checkpoint.load_into(learner, run / name)
    data = plan.train.episodes()
    iterator = iter(at_step(data, done))
    _take_steps(plan, iterator, range(done, step - 1))
    if (step - 1) % training.steps_per_epoch == 0:
        begin_seeds(learner, (step - 1) // training.steps_per_epoch)
    reports = list(report_tasks(learner, next(iterator)))
    episodes = [episode_index(data, step - 1, report.task) for report in reports]
    return Replay(name, step - 1 - done, reports, episodes)


def _newest_before(folder: Path, recipe: Recipe, step: int) -> tuple[str, Progress]:
    """Returns the newest checkpoint from before a step, and how far it is."""
    found, best = "", Progress({})
    for name in (CHECKPOINT, PREVIOUS):
        if (folder / name).exists():
            try:
                checkpoint.check_whole(folder / name)
                progress = checkpoint.read_progress(folder / name)
            except BrokenFileError:
                continue  # A file before it is as good.
            if progress is None or not is_recipe(progress.recipe, recipe):
                continue
            done = progress.epoch * recipe.training.steps_per_epoch + progress.step
            if done < step and progress.position > best.position:
                found, best = name, progress
    return found, best


def _take_steps(plan: Plan, iterator: object, steps: range) -> None:
    """Takes steps of meta-training as `fit` takes them."""
    learner, per_epoch = plan.learner, plan.recipe.training.steps_per_epoch
    learner.make_train_function()
    for step in steps:
        if step % per_epoch == 0:
            begin_seeds(learner, step // per_epoch)
        try:
            with in_one_sentence():
                learner.train_function(iterator)
        except ValueError as error:
            raise ValueError(f"Look at step {step + 1}, which was not taken: {error}") from error
