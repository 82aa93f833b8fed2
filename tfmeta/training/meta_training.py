"""Meta-training by a recipe."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import keras
import yaml

from tfmeta import plots, signals
from tfmeta.callbacks import checkpoint
from tfmeta.callbacks.checkpoint import Progress
from tfmeta.callbacks.finding import describe, find
from tfmeta.callbacks.run_files import BEST, held, read_history
from tfmeta.files import write_text
from tfmeta.learners import MetaLearner, SimpleShot
from tfmeta.recipes import Recipe
from tfmeta.recipes.plan import Plan, make_callbacks, prepare
from tfmeta.report import Report
from tfmeta.training.details import data_facts, data_line, machine, versions, write_details
from tfmeta.training.measuring import measure
from tfmeta.training.recipe_resume import RecipeResume
from tfmeta.training.recipe_run import recipe_run
from tfmeta.training.run_folder import (
    ADAPTATION_CURVE,
    DETAILS,
    EPISODES,
    EVALUATION,
    FILES,
    FITS,
    LEARNING_CURVE,
    RECIPE,
    check_free,
    load_learner,
)


def train(
    recipe: Recipe,
    output: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    checkpoint_every: int | str | None = None,
) -> Report:
    """Meta-trains and tests a learner, or resumes where an earlier call was interrupted.

    Args:
        recipe: Recipe. What to train.
        output: str or path. The run folder. In the end it holds the recipe as run, `run.json`
            (data, preprocessing, machine and versions of each session), `history.csv`, TensorBoard
            logs, `best.keras` (best on validation), `checkpoint.keras` and `previous.keras` (to
            resume from), `evaluation.json` and pictures.
        data_dir: str or path. TensorFlow Datasets' directory. Defaults to None, its own default.
        checkpoint_every: int, str or None. As in `tfmeta.callbacks.Resume`: saves within epochs,
            too, every so many steps (100) or seconds ("60s"). Defaults to None: after each epoch.

    Returns:
        The best learner's evaluations on test classes.

    Raises:
        ValueError: If `output` holds the run of another recipe, another process trains into it,
            the data do not fit or changed since the run began, or nothing of a run is left to
            resume from.
        Stopped: If a signal (SIGINT, SIGTERM or SIGHUP) ends it. While it trains, a checkpoint is
            written before. It is a `KeyboardInterrupt`, and its text says what is saved.

    Warns:
        RuntimeWarning: If a file of the run was lost or is broken, with what takes its place.
    """
    folder = Path(output)
    check_free(folder, recipe)
    # A recipe with a mistake fails here, before it claims a folder.
    plan = prepare(recipe, data_dir)
    with held(folder, FILES):
        check_free(folder, recipe)
        try:
            with signals.raised():
                return _train(plan, folder, checkpoint_every)
        except KeyboardInterrupt as stop:
            text = f"{describe(folder)} To go on, repeat the command."
            raise signals.Stopped(signals.number_of(stop), text) from stop


def _train(plan: Plan, folder: Path, checkpoint_every: int | str | None) -> Report:
    """Trains what is left of a run, and tests its best learner."""
    seconds = None
    if plan.recipe.training.epochs:
        _fit(plan, folder, checkpoint_every)
        history = read_history(folder)
        plots.learning_curve(history, folder / LEARNING_CURVE)
        seconds = sum(row["seconds"] for row in history)
    else:
        _keep_as_made(plan, folder)
    learner = load_learner(folder)
    report = dataclasses.replace(
        measure(learner, plan.tests),
        training_seconds=seconds,
        n_parameters=learner.count_params(),
        machine=machine(),
        versions=versions(),
    )
    report.write(folder / EVALUATION)
    _draw(plan, learner, report, folder)
    return report


def _fit(plan: Plan, folder: Path, checkpoint_every: int | str | None) -> None:
    """Meta-trains what is left of a run."""
    recipe, training = plan.recipe, plan.recipe.training
    progress = find(recipe_run(plan), folder)
    is_finished = progress.stopped or progress.epoch >= training.epochs
    _write_recipe(recipe, folder)
    if not is_finished or not (folder / DETAILS).exists():
        write_details(folder, plan, progress)
    if is_finished:
        print(f"{folder} is trained: {progress.text(training.epochs)}.")
        return
    print(data_line(plan), flush=True)
    validation = plan.validation
    plan.learner.fit(
        plan.train.episodes(),
        steps_per_epoch=training.steps_per_epoch,
        epochs=training.epochs,
        validation_data=validation.episodes(),
        validation_steps=-(-validation.n_episodes // validation.meta_batch_size),
        callbacks=[
            *make_callbacks(recipe),
            keras.callbacks.TensorBoard(folder / "logs", write_graph=False),
            RecipeResume(plan, folder, checkpoint_every),
        ],
        shuffle=False,
        verbose=1 if os.isatty(1) else 2,
    )


def _keep_as_made(plan: Plan, folder: Path) -> None:
    """Writes the learner of a recipe that trains nothing: each time anew, so nothing resumes."""
    learner, progress = plan.learner, Progress(plan.recipe.to_dict(), data_facts(plan))
    _write_recipe(plan.recipe, folder)
    write_details(folder, plan, progress)
    print(data_line(plan), flush=True)
    if isinstance(learner, SimpleShot):
        print("Computing the mean feature of the training classes.", flush=True)
        learner.set_feature_mean(plan.train.source, verbose=1 if os.isatty(1) else 0)
    checkpoint.save_best(learner, folder / BEST, progress)


def _write_recipe(recipe: Recipe, folder: Path) -> None:
    if not (folder / RECIPE).exists():
        text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
        write_text(folder / RECIPE, text)


def _draw(plan: Plan, learner: MetaLearner, report: Report, folder: Path) -> None:
    """Draws how the learner adapts, and what it predicts in the first test episodes."""
    if report.own.steps:
        plots.adaptation_curve(report.evaluations, folder / ADAPTATION_CURVE, report.inner_steps)
    test = plan.tests[0]
    example = next(iter(test.episodes()))
    if plan.recipe.is_regression:
        plots.regression_fits({plan.recipe.name: learner}, example, folder / FITS)
    elif test.source.image_format is not None:
        plots.episode_sheet(learner, example, folder / EPISODES)
