"""Meta-training by a recipe."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import keras
import yaml

from tfmeta import plots
from tfmeta.files import write_text
from tfmeta.learners import MetaLearner
from tfmeta.recipes import Recipe
from tfmeta.recipes.plan import Plan, prepare
from tfmeta.report import Report
from tfmeta.training.details import data_line, machine, versions, write_details
from tfmeta.training.epoch_saver import EpochSaver
from tfmeta.training.measuring import check_n_way, measure
from tfmeta.training.run_folder import (
    ADAPTATION_CURVE,
    CHECKPOINT,
    EVALUATION,
    RECIPE,
    check_free,
    held,
    load_learner,
    read_history,
)


def train(
    recipe: Recipe,
    output: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
) -> Report:
    """Meta-trains and tests a learner, or resumes where an earlier call was interrupted.

    Args:
        recipe: Recipe. What to train.
        output: str or path. The run folder. In the end it holds the recipe as run, `run.json`
            (data, preprocessing, machine and versions of each session), `history.csv`, TensorBoard
            logs, `best.keras` (best on validation), `checkpoint.keras` (the last epoch),
            `evaluation.json` and pictures.
        data_dir: str or path. TensorFlow Datasets' directory. Defaults to None, its own default.

    Returns:
        The best learner's evaluations on test classes.

    Raises:
        ValueError: If `output` holds the run of another recipe, another process trains into it, or
            the data do not fit.
    """
    folder = Path(output)
    check_free(folder, recipe)
    # A recipe with a mistake fails here, before it claims a folder.
    plan = prepare(recipe, data_dir)
    check_n_way(plan.learner, plan.tests)
    with held(folder):
        check_free(folder, recipe)
        _fit(plan, folder)
        plots.learning_curve(read_history(folder), folder / "learning_curve.png")
        learner = load_learner(folder)
        report = dataclasses.replace(
            measure(learner, plan.tests),
            training_seconds=sum(row["seconds"] for row in read_history(folder)),
            n_parameters=learner.count_params(),
            machine=machine(),
            versions=versions(),
        )
        report.write(folder / EVALUATION)
        _draw(plan, learner, report, folder)
    return report


def _fit(plan: Plan, folder: Path) -> None:
    """Meta-trains what is left of a run."""
    recipe, training = plan.recipe, plan.recipe.training
    learner, epoch, history = plan.learner, 0, []
    if (folder / CHECKPOINT).exists():
        learner = keras.models.load_model(folder / CHECKPOINT)
        epoch = int(learner.optimizer.iterations) // training.steps_per_epoch
        history = read_history(folder)[:epoch]
        print(f"Resuming {folder} after epoch {epoch} of {training.epochs}.")
    if epoch >= training.epochs:
        return
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
    write_text(folder / RECIPE, text)
    write_details(folder, plan, epoch)
    print(data_line(plan), flush=True)
    validation = plan.validation
    learner.fit(
        plan.train.episodes(epoch * training.steps_per_epoch * plan.train.meta_batch_size),
        steps_per_epoch=training.steps_per_epoch,
        initial_epoch=epoch,
        epochs=training.epochs,
        validation_data=validation.episodes(),
        validation_steps=-(-validation.n_episodes // validation.meta_batch_size),
        callbacks=[
            EpochSaver(
                folder,
                monitor="val_loss" if recipe.is_regression else "val_accuracy",
                higher_is_better=not recipe.is_regression,
                history=history,
            ),
            keras.callbacks.TensorBoard(folder / "logs", write_graph=False),
        ],
        shuffle=False,
        verbose=1 if os.isatty(1) else 2,
    )


def _draw(plan: Plan, learner: MetaLearner, report: Report, folder: Path) -> None:
    """Draws how the learner adapts, and what it predicts in the first test episodes."""
    if report.own.steps:
        plots.adaptation_curve(report.evaluations, folder / ADAPTATION_CURVE, report.inner_steps)
    test = plan.tests[0]
    example = next(iter(test.episodes()))
    if plan.recipe.is_regression:
        plots.regression_fits({plan.recipe.name: learner}, example, folder / "fits.png")
    elif test.source.image_format is not None:
        plots.episode_sheet(learner, example, folder / "episodes.png")
