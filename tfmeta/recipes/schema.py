"""The sections of a recipe, and the values of their keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import pydantic
from pydantic import BeforeValidator, Field

from tfmeta.recipes.data import (
    REGRESSION_DATA,
    ClassData,
    ClassEpisodes,
    RegressionData,
    RegressionEpisodes,
)
from tfmeta.recipes.errors import sentence
from tfmeta.recipes.learners import Learner
from tfmeta.recipes.networks import Network
from tfmeta.recipes.options import (
    BatchNorm,
    KerasObject,
    Natural,
    OptionalNatural,
    Options,
    Positive,
    Text,
    TwoOrMore,
    refusal,
)
from tfmeta.recipes.yaml_files import read_yaml


def _check_is_list(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise refusal(f"must be a list of mappings; got {value!r}.")
    return value


class Training(Options):
    """How `fit` runs."""

    epochs: Positive
    """Number of epochs. After each one the learner is validated and saved."""
    steps_per_epoch: Positive
    """Meta-batches per epoch."""
    optimizer: KerasObject
    """The outer optimizer, as Keras serialises it."""
    seed: Natural = 0
    """Seed of the initial weights and of the episodes."""


# A YAML list, stored as a tuple.
T = TypeVar("T")
Settings = Annotated[tuple[T, ...], Field(strict=False), BeforeValidator(_check_is_list)]


# === Validation and test: the episodes' options that differ, and how many episodes ===


class Validation(Options):
    """How a learner is validated after each epoch."""

    n_episodes: Positive
    """Number of episodes, rounded up to whole meta-batches."""


class Setting(Options):
    """A further test setting: each option that differs from the evaluation's own."""

    n_episodes: TwoOrMore | None = None
    """Number of test episodes, if it differs."""
    inner_steps: OptionalNatural = None
    """The most inner steps to measure after, if it differs."""
    batch_norm: BatchNorm | None = None
    """How batch norm normalises, if not as in meta-training."""


class Evaluation(Options):
    """How the best learner is tested."""

    n_episodes: TwoOrMore
    """Number of test episodes."""
    inner_steps: OptionalNatural = None
    """Measure after 0, 1, … this many inner steps, too. Not measured if it is null."""


class ClassValidation(ClassEpisodes, Validation):
    """How a classifier is validated."""


class ClassSetting(ClassEpisodes, Setting):
    """A further test setting of a classifier."""


class ClassEvaluation(ClassEpisodes, Evaluation):
    """How a classifier is tested."""

    also: Settings[ClassSetting] = ()
    """Further settings to test in."""


class RegressionValidation(RegressionEpisodes, Validation):
    """How a regressor is validated."""


class RegressionSetting(RegressionEpisodes, Setting):
    """A further test setting of a regressor."""


class RegressionEvaluation(RegressionEpisodes, Evaluation):
    """How a regressor is tested."""

    also: Settings[RegressionSetting] = ()
    """Further settings to test in."""


# === The whole ===


class Recipe(Options):
    """How a learner is meta-trained and tested.

    `Recipe.load` and `Recipe.from_dict` return a `ClassRecipe` or a `RegressionRecipe`, depending
    on the data.

    Example:

    >>> recipe = Recipe.load("models/maml_sinusoid")
    >>> recipe.learner.inner_learning_rate, recipe.episodes.meta_batch_size
    (0.01, 25)
    """

    is_regression: ClassVar[bool]

    name: Text
    """Name of the recipe."""
    data: Any
    """Where examples come from."""
    episodes: Any
    """The sizes of the episodes in meta-training."""
    network: Network
    """The base network."""
    learner: Learner
    """The learner."""
    training: Training
    """How `fit` runs."""
    validation: Any
    """How the learner is validated after each epoch."""
    evaluation: Any
    """How the best learner is tested."""
    protocol: Text
    """The test protocol in words, for the model's card."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Reads and checks a recipe.

        Args:
            path: str or path. A YAML file, or a folder with a `recipe.yaml`.

        Returns:
            The recipe.

        Raises:
            ValueError: If there is no such file, it is not YAML, or a key or value is wrong.
        """
        file = Path(path)
        if file.is_dir():
            file = file / "recipe.yaml"
        if not file.is_file():
            raise ValueError(f"No recipe at {path}: expected a YAML file or a folder with one.")
        content = read_yaml(file)
        try:
            return cls.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @classmethod
    def from_dict(cls, content: Any) -> Recipe:
        """Checks a dictionary with a recipe's content.

        Args:
            content: dict. What the YAML file of a recipe holds.

        Returns:
            The recipe.

        Raises:
            ValueError: If a key is missing or unknown, or a value is wrong. The message names the
                key, what was expected and what was given.
        """
        data = content.get("data") if isinstance(content, Mapping) else None
        name = data.get("name") if isinstance(data, Mapping) else None
        kind: type[Recipe] = RegressionRecipe if name in REGRESSION_DATA else ClassRecipe
        try:
            return kind.model_validate(content)
        except pydantic.ValidationError as error:
            raise ValueError(sentence(error)) from error

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain values, for YAML: what was given, and the seed."""
        return {**self.given(), "training": self.training.model_dump(mode="json")}

    def with_training(self, **changes: Any) -> Recipe:
        """Returns the recipe with other options of its training, such as `epochs` or `seed`.

        Args:
            **changes: Options of `training`.

        Raises:
            ValueError: If there is no such option, or a value is wrong.
        """
        content = self.to_dict()
        return self.from_dict({**content, "training": {**content["training"], **changes}})


class ClassRecipe(Recipe):
    """A recipe whose tasks are to tell classes apart."""

    is_regression = False

    data: ClassData
    episodes: ClassEpisodes
    validation: ClassValidation
    evaluation: ClassEvaluation


class RegressionRecipe(Recipe):
    """A recipe whose tasks are regression tasks."""

    is_regression = True

    data: RegressionData
    episodes: RegressionEpisodes
    validation: RegressionValidation
    evaluation: RegressionEvaluation
