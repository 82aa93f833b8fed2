"""The sections of a recipe, and the values of their keys."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import pydantic
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from tfmeta.recipes.augmentation import Augment
from tfmeta.recipes.data import (
    REGRESSION_DATA,
    ClassData,
    ClassEpisodes,
    RegressionData,
    RegressionEpisodes,
)
from tfmeta.recipes.episode_options import check_groups, episode_options
from tfmeta.recipes.errors import sentence
from tfmeta.recipes.learners import Learner
from tfmeta.recipes.networks import Network
from tfmeta.recipes.options import (
    BatchNorm,
    Episodes,
    Epochs,
    EpochsOrNone,
    ExamplesOrNone,
    Expected,
    KerasObject,
    OptionalFraction,
    OptionalSteps,
    Options,
    Seed,
    TestEpisodes,
    Text,
    refusal,
    shown,
)
from tfmeta.recipes.sizes import check_sizes
from tfmeta.recipes.yaml_files import read_yaml


def _check_is_list(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise refusal(f"must be a list of mappings; got {shown(value)}.")
    if len(value) > 100:
        raise refusal(f"must be a list of at most 100 entries; got {len(value):,}.")
    return value


# A YAML list, stored as a tuple.
T = TypeVar("T")
Settings = Annotated[tuple[T, ...], Field(strict=False), BeforeValidator(_check_is_list)]

# An interrupted run can bring these back to the state that they had; see `tfmeta.training`.
CALLBACKS = ("EarlyStopping", "ReduceLROnPlateau", "TerminateOnNaN")


def _check_callbacks(value: Any) -> Any:
    expected = f"must be a list of {', '.join(CALLBACKS)}, which an interrupted run can restore"
    if not isinstance(value, list | tuple):
        raise refusal(f"{expected}; got {shown(value)}.")
    names = [each.get("class_name") if isinstance(each, Mapping) else each for each in value]
    for name in names:
        if name not in CALLBACKS:
            raise refusal(f"{expected}; got {shown(name)}.")
        if names.count(name) > 1:
            raise refusal(f"must be a list with each callback once; got {name} twice.")
    return value


Callbacks = Annotated[
    tuple[KerasObject, ...],
    Field(strict=False),
    Expected("a list of Keras callbacks"),
    BeforeValidator(_check_callbacks),
]


class Training(Options):
    """How `fit` runs."""

    epochs: EpochsOrNone
    """Number of epochs. After each one the learner is validated and saved. With 0, nothing is
    trained: the learner is tested with the weights that its network has, such as those of
    `efficientnet_lite0`."""
    steps_per_epoch: Epochs = 1
    """Meta-batches per epoch. Not required if `epochs` is 0."""
    optimizer: KerasObject = "adam"
    """The outer optimizer, as Keras serialises it. Not required if `epochs` is 0."""
    seed: Seed = 0
    """Seed of the initial weights and of the episodes."""
    callbacks: Callbacks = ()
    """Keras callbacks: `EarlyStopping`, `ReduceLROnPlateau` and `TerminateOnNaN`."""
    dtype_policy: Annotated[Literal["float32", "mixed_bfloat16", "mixed_float16"], Expected()] = (
        "float32"
    )
    """The precision in which the base network computes, as a Keras dtype policy."""

    @pydantic.model_validator(mode="after")
    def _check_complete(self) -> Self:
        missing = [k for k in ("steps_per_epoch", "optimizer") if k not in self.model_fields_set]
        if self.epochs and missing:
            raise refusal(f"missing {missing}.")
        return self


# === Validation and test: the episodes' options that differ, and how many episodes ===


class Validation(Options):
    """How a learner is validated after each epoch."""

    n_episodes: Episodes
    """Number of episodes, rounded up to whole meta-batches."""


class Setting(Options):
    """A further test setting: each option that differs from the evaluation's own."""

    n_episodes: TestEpisodes | None = None
    """Number of test episodes, if it differs."""
    inner_steps: OptionalSteps = None
    """The most inner steps to measure after, if it differs."""
    batch_norm: BatchNorm | None = None
    """How batch norm normalises, if not as in meta-training."""


class Evaluation(Options):
    """How the best learner is tested."""

    n_episodes: TestEpisodes
    """Number of test episodes."""
    inner_steps: OptionalSteps = None
    """Measure after 0, 1, … this many inner steps, too. Not measured if it is null."""


class ClassValidation(ClassEpisodes, Validation):
    """How a classifier is validated."""

    augment: Augment = None
    """Layers that change each image at random; those of `episodes` do not carry over."""
    n_unlabelled: ExamplesOrNone = 0
    """Unlabelled examples per class; those of `episodes` do not carry over."""
    labelled_fraction: OptionalFraction = None
    """Fraction of examples whose labels are used; that of `episodes` does not carry over."""


class ClassSetting(ClassEpisodes, Setting):
    """A further test setting of a classifier."""


class ClassEvaluation(ClassEpisodes, Evaluation):
    """How a classifier is tested."""

    augment: Augment = None
    """Layers that change each image at random; those of `episodes` do not carry over."""
    n_unlabelled: ExamplesOrNone = 0
    """Unlabelled examples per class; those of `episodes` do not carry over."""
    labelled_fraction: OptionalFraction = None
    """Fraction of examples whose labels are used; that of `episodes` does not carry over."""
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

    # The file that it was read from, for errors that are found later.
    _file: Path | None = pydantic.PrivateAttr(None)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.to_dict() == self.to_dict()

    @contextlib.contextmanager
    def naming_file(self) -> Iterator[None]:
        """Prefixes errors in the values of this recipe with the file that it was read from."""
        try:
            yield
        except ValueError as error:
            if self._file is None:
                raise
            raise ValueError(f"{self._file}: {error}") from error

    @pydantic.model_validator(mode="after")
    def _check_episodes(self) -> Self:
        for section, options in self.all_episode_options().items():
            try:
                check_sizes(options)
                check_groups(options, getattr(self.data, "has_groups", False))
            except ValueError as error:
                message = {"message": f"{section}: {error}"}
                raise PydanticCustomError("of_section", "{message}", message) from error
        return self

    def all_episode_options(self) -> dict[str, dict[str, Any]]:
        """Returns the options of the episodes by the section that they are for."""
        also = {f"evaluation: also[{i}]": e for i, e in enumerate(self.evaluation.also)}
        return {
            "episodes": episode_options(self.episodes),
            "validation": episode_options(self.episodes, self.validation),
            "evaluation": episode_options(self.episodes, self.evaluation),
            **{k: episode_options(self.episodes, self.evaluation, e) for k, e in also.items()},
        }

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
            recipe = cls.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        recipe._file = file
        return recipe

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
        training = {**self.training.given(), "seed": self.training.seed}
        return {**self.given(), "training": training}

    def with_training(self, **changes: Any) -> Recipe:
        """Returns the recipe with other options of its training, such as `epochs` or `seed`.

        Args:
            **changes: Options of `training`.

        Raises:
            ValueError: If there is no such option, or a value is wrong.
        """
        content = self.to_dict()
        changed = self.from_dict({**content, "training": {**content["training"], **changes}})
        changed._file = self._file
        return changed


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
