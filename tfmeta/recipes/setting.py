"""One setting of a recipe: the episodes of a split, and how to measure a learner on them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import tensorflow as tf

from tfmeta.learners import MetaLearner
from tfmeta.learners.output_kinds import n_classes
from tfmeta.recipes.augmentation_makers import make_augmentation
from tfmeta.recipes.options import BatchNorm
from tfmeta.recipes.schema import Recipe

Split = Literal["train", "validation", "test", "all"]

# The numbers to add to the recipe's seed for the episodes of a split.
SPLIT_SEEDS = {"train": 0, "validation": 1_000_000, "test": 2_000_000, "all": 2_000_000}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Episodes of a split, and how to measure a learner on them.

    Attributes:
        recipe: Recipe. The recipe.
        split: str. "train", "validation", "test" or "all".
        source: ClassDataset or TaskDistribution. The data of the split.
        seed: int. Seed of the recipe; each split derives its own seed from it.
        options: dict. Options of `episodes(...)`, as a recipe has them.
        n_episodes: int. Number of episodes to validate or test on.
        inner_steps: int. Measure after 0, 1, … this many inner steps. None: do not.
        batch_norm: str. How batch norm normalises. None for the learner's own mode.
        changes: dict. The options that differ from the recipe's own test setting.
    """

    recipe: Recipe
    split: Split
    source: Any
    seed: int
    options: Mapping[str, Any]
    n_episodes: int
    inner_steps: int | None
    batch_norm: BatchNorm | None
    changes: Mapping[str, Any]

    def episodes(self, start: int = 0) -> tf.data.Dataset:
        """Returns the endless data set of meta-batches.

        Args:
            start: int. Index of the first episode. Defaults to 0.

        Raises:
            ValueError: If the data have too few classes or examples.
        """
        seed = self.seed + SPLIT_SEEDS[self.split]
        options = dict(self.options)
        with naming("episodes"):
            if "augment" in options:
                options["augment"] = make_augmentation(options["augment"])
            return self.source.episodes(**options, seed=seed, start=start)

    @property
    def meta_batch_size(self) -> int:
        """Episodes per meta-batch."""
        return int(self.options["meta_batch_size"])

    @property
    def largest_n_way(self) -> int | None:
        """The most classes that an episode has; None for regression tasks."""
        n_way = self.options.get("n_way")
        return max(n_way) if isinstance(n_way, Sequence) else n_way


def check_learner(
    learner: MetaLearner, settings: Sequence[Setting], inner_steps: int | None = None
) -> None:
    """Checks that a learner can be measured in these settings.

    Args:
        learner: MetaLearner. The learner.
        settings: sequence of Setting. The settings.
        inner_steps: int. The most inner steps to measure after, instead of the settings' own.
            Defaults to None.

    Raises:
        ValueError: If an episode has more classes than the learner has outputs, or its inner rule
            knows fewer steps.
    """
    own = settings[0]
    outputs = learner.prediction_shape(own.source.example_shape)
    tells_apart = None
    if outputs is not None and learner.output_kind != "values":
        tells_apart = n_classes(learner.output_kind, outputs[-1])
    rule = getattr(learner, "inner_rule", None)
    most_steps = getattr(rule, "max_inner_steps", None)
    for setting in settings:
        if tells_apart is not None and (n_way := setting.largest_n_way or 0) > tells_apart:
            raise ValueError(
                f"{own.recipe.name} is tested on {n_way} classes per episode, but this learner "
                f"tells {tells_apart} apart: choose another recipe, or another learner."
            )
        steps = setting.inner_steps if inner_steps is None else inner_steps
        if most_steps is not None and steps is not None and steps > most_steps:
            raise ValueError(
                f"{own.recipe.name} is measured after up to {steps} inner steps, but the inner "
                f"rule of this learner knows {most_steps}, those of meta-training: lower the "
                "evaluation's inner_steps, or raise the learner's."
            )


@contextlib.contextmanager
def naming(section: str) -> Iterator[None]:
    """Prefixes errors from the values of a section with the section's name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{section}: {error}") from error
