"""`tfmeta compare` and `tfmeta plot`: several runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmeta.cli.options import RunFolders, preset_names
from tfmeta.cli.results import read_evaluation, settings_of, with_unit
from tfmeta.cli.sources import EVALUATION, locate, recipe_of, recipe_values
from tfmeta.cli.startup import start_tensorflow
from tfmeta.cli.tables import print_table


def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Run folders and presets.", show_default=False, autocompletion=preset_names
        ),
    ],
) -> None:
    """Show results of several runs in one table.

    Each run has a row with its mean ± the 95 % confidence interval over episodes. Runs of one
    recipe that differ in the seed alone stand together, and a further row has their mean ± half of
    their range.
    """
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    firsts: dict[str, tuple[str, str]] = {}
    for source in sources:
        found = locate(source)
        evaluation = read_evaluation(found.folder)
        if evaluation is None:
            raise ValueError(f"{source} has no {EVALUATION}: `tfmeta train` writes it at the end.")
        recipe = recipe_values(found)
        name, seed = recipe["name"], recipe["training"].get("seed", 0)
        recipe["training"] = {**recipe["training"], "seed": None}
        key = json.dumps(recipe, sort_keys=True)
        groups.setdefault(key, []).append((str(seed), evaluation))
        firsts.setdefault(key, (name, source))
    labels = distinct(list(firsts.values()))
    settings = list(
        dict.fromkeys(
            setting
            for group in groups.values()
            for _, evaluation in group
            for setting in settings_of(evaluation)
        )
    )
    rows: list[list[str]] = []
    for label, group in zip(labels, groups.values(), strict=True):
        for seed, evaluation in group:
            cells = [across_seeds([evaluation], setting) for setting in settings]
            rows.append([label, seed, *cells])
        if len(group) > 1:
            all_of_them = [evaluation for _, evaluation in group]
            cells = [across_seeds(all_of_them, setting) for setting in settings]
            rows.append([label, f"mean of {len(group)}", *cells])
    print_table(["recipe", "seed", *settings], rows)


def distinct(named: Sequence[tuple[str, str]]) -> list[str]:
    """Returns the names; adds the source to each name that occurs more than once.

    Args:
        named: Sequence of (name, source).

    Example:

    >>> distinct([("maml", "runs/0"), ("maml", "runs/1"), ("anil", "runs/2")])
    ['maml (runs/0)', 'maml (runs/1)', 'anil']
    """
    names = [name for name, _ in named]
    return [name if names.count(name) == 1 else f"{name} ({source})" for name, source in named]


def across_seeds(evaluations: Sequence[dict[str, Any]], setting: str) -> str:
    """Returns the result of one run, or the mean and half the range of several runs.

    Args:
        evaluations: Sequence of dict. The evaluations of the runs.
        setting: str. The setting's name.

    Example:

    >>> of = {"episodes": {"n_shot": 1}, "metric": "accuracy", "ci95": 0.01}
    >>> across_seeds([{**of, "mean": 0.9}, {**of, "mean": 0.94}], "1-shot")
    '92.00 ± 2.00 %'
    """
    found = [settings_of(e)[setting] for e in evaluations if setting in settings_of(e)]
    if not found:
        return "–"
    metric = found[0]["metric"]
    if len(found) == 1:
        return with_unit(found[0]["mean"], found[0]["ci95"], metric)
    means = [result["mean"] for result in found]
    if None in means:
        return "not finite"
    return with_unit(sum(means) / len(means), (max(means) - min(means)) / 2, metric)


def plot(
    runs: RunFolders,
    output: Annotated[Path, typer.Option(help="The PNG file to write.", show_default=False)],
) -> None:
    """Plot regressors' fits to the same tasks."""
    recipes = [recipe_of(str(run)) for run in runs]
    if not all(recipe.is_regression for recipe in recipes):
        raise ValueError(
            "Only fits of regression tasks are drawn; for other runs see their own pictures, and "
            "`tfmeta compare`."
        )
    start_tensorflow()
    from tfmeta import plots, training
    from tfmeta.recipes.plan import settings

    tasks = settings(recipes[0], "test")[0].episodes()
    labels = distinct([(recipe.name, str(run)) for recipe, run in zip(recipes, runs, strict=True)])
    learners = {label: training.load_learner(run) for label, run in zip(labels, runs, strict=True)}
    plots.regression_fits(learners, next(iter(tasks)), output)
    print(f"Written to {output}.")
