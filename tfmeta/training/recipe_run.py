"""The facts that tell the run of a recipe from others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tfmeta.callbacks.run import Run
from tfmeta.recipes.plan import Plan
from tfmeta.training.details import check_same_data, data_facts
from tfmeta.training.run_folder import is_recipe


@dataclasses.dataclass(frozen=True)
class RecipeRun(Run):
    """Tells the run of a recipe from others by the recipe, as any version of tfmeta reads it.

    Attributes:
        plan: Plan. What is trained.
    """

    plan: Plan = dataclasses.field(kw_only=True)

    def difference(self, content: dict[str, Any]) -> str | None:
        """Says whether a run that was saved is that of another recipe; see `Run`."""
        return None if is_recipe(content, self.plan.recipe) else "its recipe is another one"

    def check_data(self, folder: Path, before: dict[str, Any] | None) -> None:
        """Raises a ValueError if the data changed since the run began; see `Run`."""
        check_same_data(folder, before, self.data or {})


def recipe_run(plan: Plan) -> RecipeRun:
    """Returns what tells the run of a recipe from others.

    Args:
        plan: Plan. What is trained.
    """
    recipe = plan.recipe
    return RecipeRun(
        recipe.to_dict(),
        recipe.training.steps_per_epoch,
        recipe.is_regression,
        data_facts(plan),
        plan=plan,
    )
