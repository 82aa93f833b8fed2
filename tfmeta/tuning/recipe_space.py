"""The hyper-parameters of recipes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from tfmeta.recipes import Recipe
from tfmeta.registry import hint
from tfmeta.tuning.search_space import Range, SearchSpace

OUTER_RATE, META_BATCH_SIZE = "outer_learning_rate", "meta_batch_size"
# The options of learners, for each learner that has them.
OF_LEARNERS: dict[str, Range | list[Any]] = {
    "inner_learning_rate": Range(0.001, 2.0, log=True),
    "inner_steps": Range(1, 10, integer=True),
    "finetuning_learning_rate": Range(1e-4, 0.1, log=True),
    "kl_weight": Range(1e-4, 1.0, log=True),
    "dropout_rate": Range(0.0, 0.7),
    "temperature": Range(0.01, 1.0, log=True),
    "initial_scale": Range(1.0, 100.0, log=True),
    "initial_regularization": Range(0.01, 100.0, log=True),
}
OF_ALL: dict[str, Range | list[Any]] = {
    OUTER_RATE: Range(1e-4, 0.03, log=True),
    META_BATCH_SIZE: [1, 2, 4, 8, 16, 32],
}


def recipe_space(recipe: Recipe, names: Sequence[str] | None = None) -> SearchSpace:
    """Returns the hyper-parameters of a recipe that can be searched, with their ranges.

    Args:
        recipe: Recipe. The recipe.
        names: sequence of str. Which of them to search. Defaults to None: all that it has.

    Returns:
        The space. The outer learning rate is left out if it follows a schedule.

    Raises:
        ValueError: If the recipe trains nothing, or has no such hyper-parameter.

    Example:

    >>> recipe = Recipe.load("models/maml_sinusoid")
    >>> list(recipe_space(recipe).parameters)
    ['inner_learning_rate', 'inner_steps', 'outer_learning_rate', 'meta_batch_size']
    """
    if not recipe.training.epochs:
        raise ValueError(f"{recipe.name} has epochs: 0, so it trains nothing that could be tuned.")
    fields = type(recipe.learner).model_fields
    known = {name: allowed for name, allowed in OF_LEARNERS.items() if name in fields}
    known |= OF_ALL
    if _with_rate(recipe.training.optimizer, 0.001) is None:
        del known[OUTER_RATE]
    chosen = list(dict.fromkeys(known if names is None else names))
    for name in chosen:
        if name not in known:
            raise ValueError(
                f"{recipe.name} has no hyper-parameter {name!r} to search; {hint(name, known)}"
            )
    return SearchSpace({name: known[name] for name in chosen})


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Returns the recipe with values of its hyper-parameters.

    Args:
        recipe: Recipe. The recipe.
        values: dict. A configuration of its `recipe_space`.
    """
    content = copy.deepcopy(recipe.to_dict())
    for name, value in values.items():
        if name == OUTER_RATE:
            optimizer = _with_rate(recipe.training.optimizer, value)
            content["training"]["optimizer"] = optimizer
        elif name == META_BATCH_SIZE:
            content["episodes"][name] = value
        else:
            content["learner"][name] = value
    return Recipe.from_dict(content)


def _with_rate(optimizer: Any, rate: float) -> dict[str, Any] | None:
    """Returns an optimizer with another rate; None if its rate is no number."""
    if isinstance(optimizer, str):
        return {"class_name": optimizer, "config": {"learning_rate": rate}}
    config = optimizer.get("config", {})
    if not isinstance(config.get("learning_rate", 0.0), int | float) or "inner_optimizer" in config:
        return None
    return {**copy.deepcopy(optimizer), "config": {**copy.deepcopy(config), "learning_rate": rate}}
