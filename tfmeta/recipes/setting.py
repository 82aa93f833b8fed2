"""One setting of a recipe: the episodes of a split, and how to measure a learner on them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import tensorflow as tf

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
        options: dict. Options of `episodes(...)`.
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
        with naming("episodes"):
            return self.source.episodes(**self.options, seed=seed, start=start)

    @property
    def meta_batch_size(self) -> int:
        """Episodes per meta-batch."""
        return int(self.options["meta_batch_size"])

    @property
    def largest_n_way(self) -> int | None:
        """The most classes that an episode has; None for regression tasks."""
        n_way = self.options.get("n_way")
        return max(n_way) if isinstance(n_way, Sequence) else n_way


@contextlib.contextmanager
def naming(section: str) -> Iterator[None]:
    """Prefixes errors from the values of a section with the section's name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{section}: {error}") from error
