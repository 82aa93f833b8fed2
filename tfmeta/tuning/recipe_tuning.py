"""Searches the hyper-parameters of a recipe."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras_tuner
import yaml

from tfmeta import signals
from tfmeta.checks import check_integer
from tfmeta.evaluation import evaluate
from tfmeta.files import write_json, write_text
from tfmeta.recipes import Recipe
from tfmeta.recipes.episode_options import episode_options
from tfmeta.recipes.plan import Plan, make_learner, prepare
from tfmeta.tuning.oracle import WarmStartOracle
from tfmeta.tuning.recipe_space import recipe_space, with_values
from tfmeta.tuning.tuning_folder import (
    BEST,
    TABLE,
    TRIALS,
    TUNER,
    check_free,
    held,
    read_past,
    table_text,
)


def tune(
    recipe: Recipe,
    output: str | os.PathLike[str],
    *,
    trials: int = 20,
    steps: int = 200,
    search: Sequence[str] | None = None,
    past: Sequence[str | os.PathLike[str]] = (),
    data_dir: str | os.PathLike[str] | None = None,
) -> Recipe:
    """Searches good hyper-parameters of a recipe by short trainings, or resumes a search.

    A trial trains the recipe's learner for a short time, and evaluates it on the recipe's
    validation episodes. Test classes are not used. Each trial sees the same number of tasks: with
    half the meta-batch size, it takes twice the steps.

    Args:
        recipe: Recipe. The recipe.
        output: str or path. The folder to write. In the end it holds `best.yaml`, the recipe with
            the best values, `trials.csv`, the table of all trials, and `tuning.json`, from which
            later searches start.
        trials: int ≥ 1. The number of trials. A finished search goes on if it is larger. Defaults
            to 20.
        steps: int ≥ 1. Steps of a trial with the recipe's own meta-batch size. Defaults to 200.
        search: sequence of str. The hyper-parameters to search. Defaults to None: all that
            `recipe_space` finds.
        past: sequence of paths. Folders of earlier searches, for other data or learners with the
            same hyper-parameters. The first trials are those that served them best.
        data_dir: str or path. TensorFlow Datasets' directory. Defaults to None, its own default.

    Returns:
        The recipe with the best values.

    Raises:
        ValueError: If an option or a past search does not fit, `output` holds another search, or
            all trials failed.
        Stopped: If a signal ends it. It is a `KeyboardInterrupt`.

    Example (takes a minute)::

        tune(Recipe.load("models/maml_sinusoid"), "tuning/sinusoid", trials=10, steps=100)
    """
    check_integer("trials", trials, 1)
    check_integer("steps", steps, 1)
    space = recipe_space(recipe, search)
    objective = (
        keras_tuner.Objective("mse", "min")
        if recipe.is_regression
        else keras_tuner.Objective("accuracy", "max")
    )
    observed = [read_past(Path(folder), space, objective.name) for folder in past]
    folder = Path(output)
    settings = {
        "recipe": recipe.to_dict(),
        "space": space.get_config(),
        "objective": objective.name,
        "steps": steps,
        "past": [str(folder) for folder in past],
    }
    check_free(folder, settings)
    plan = prepare(recipe, data_dir)
    with held(folder):
        check_free(folder, settings)
        oracle = WarmStartOracle(
            objective,
            space,
            past=observed,
            max_trials=trials,
            seed=recipe.training.seed,
            max_consecutive_failed_trials=trials + 1,
        )
        if not (folder / TRIALS).exists():
            write_json(folder / TRIALS, {**settings, "trials": []})
        tuner = _RecipeTuner(oracle, plan, settings, folder)
        try:
            tuner.search()
        except KeyboardInterrupt as stop:
            text = f"Finished trials are saved in {folder}. To go on, repeat the command."
            raise signals.Stopped(signals.number_of(stop), text) from stop
        return tuner.finish()


class _RecipeTuner(keras_tuner.Tuner):
    """Runs the trials of a recipe.

    Args:
        oracle: WarmStartOracle. Chooses the values.
        plan: Plan. The recipe, with its data.
        settings: dict. What the search was asked for.
        folder: Path. The folder of the search.
    """

    def __init__(
        self, oracle: WarmStartOracle, plan: Plan, settings: dict[str, Any], folder: Path
    ) -> None:
        self.plan, self.settings, self.folder = plan, settings, folder
        self.objective = oracle.objective
        super().__init__(oracle, directory=folder, project_name=TUNER)

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        """Trains and evaluates a learner; KerasTuner calls it.

        Args:
            trial: keras_tuner trial. Its values.
        """
        recipe = with_values(self.plan.recipe, trial.hyperparameters.values)
        train = dataclasses.replace(
            self.plan.train, recipe=recipe, options=episode_options(recipe.episodes)
        )
        n_tasks = self.settings["steps"] * self.plan.train.meta_batch_size
        learner = make_learner(recipe, train.source.example_shape)
        verbose = 1 if os.isatty(1) else 0
        began = time.monotonic()
        learner.fit(
            train.episodes(),
            steps_per_epoch=max(1, round(n_tasks / train.meta_batch_size)),
            verbose=verbose,
        )
        validation = self.plan.validation
        result = evaluate(
            learner, validation.episodes(), validation.n_episodes, verbose=bool(verbose)
        )
        seconds = time.monotonic() - began
        return {self.objective.name: result.estimate.mean, "seconds": seconds}

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)
        self._write()

    def finish(self) -> Recipe:
        """Writes the best recipe, and returns it.

        Raises:
            ValueError: If all trials failed.
        """
        self._write()
        best = self.oracle.get_best_trials(1)
        if not best:
            messages = [t.message for t in self.oracle.trials.values() if t.message]
            reason = messages[-1].strip().splitlines()[-1] if messages else "no finite result"
            raise ValueError(f"All trials failed; the last one: {reason}")
        recipe = with_values(self.plan.recipe, best[0].hyperparameters.values)
        text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
        write_text(self.folder / BEST, text)
        return recipe

    def _write(self) -> None:
        """Writes what was tried so far."""
        rows = []
        for i in self.oracle.start_order:
            trial = self.oracle.trials[i]
            is_finished = trial.status == "COMPLETED"
            seconds = trial.metrics.get_best_value("seconds") if is_finished else None
            values = {
                name: trial.hyperparameters.values[name] for name in self.oracle.space.parameters
            }
            score = trial.score if is_finished else None
            rows.append({"values": values, self.objective.name: score, "seconds": seconds})
        write_json(self.folder / TRIALS, {**self.settings, "trials": rows})
        write_text(self.folder / TABLE, table_text(rows, self.objective.name))
