"""Builds the data, the episodes and the compiled learner of a recipe."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import keras

from tfmeta import backbones, data, learners
from tfmeta.data.names import resolve
from tfmeta.learners import MetaLearner
from tfmeta.recipes.learners import ANIL, InnerSteps
from tfmeta.recipes.schema import Recipe
from tfmeta.recipes.setting import Setting, Split, naming

# Makes a network of the number of outputs (None for features), the example shape and options.
NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "conv4": backbones.conv4,
    "film_conv4": backbones.film_conv4,
    "linear": backbones.linear,
    "mlp": backbones.mlp,
    "relation_encoder": lambda n_outputs, input_shape, **options: backbones.relation_encoder(
        input_shape, **options
    ),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A recipe with its data loaded and its learner made.

    Attributes:
        recipe: Recipe. The recipe.
        learner: MetaLearner. The learner, compiled, with the recipe's initial weights.
        train: Setting. Meta-training.
        validation: Setting. Validation after each epoch.
        tests: tuple of Setting. The recipe's own test setting, then its further ones.
    """

    recipe: Recipe
    learner: MetaLearner
    train: Setting
    validation: Setting
    tests: tuple[Setting, ...]


def prepare(recipe: Recipe, data_dir: str | os.PathLike[str] | None = None) -> Plan:
    """Loads the data of a recipe and makes its learner.

    Args:
        recipe: Recipe. The recipe.
        data_dir: str or path. TensorFlow Datasets' directory. Defaults to None, its own default.

    Returns:
        The plan; all of its data sets of episodes can be made.

    Raises:
        ValueError: If there are no such data, they have too few classes or examples, or an option
            of the network, the learner or the optimizer does not fit.
    """
    (train,) = settings(recipe, "train", data_dir)
    (validation,) = settings(recipe, "validation", data_dir)
    tests = settings(recipe, "test", data_dir)
    for setting in (train, validation, *tests):
        setting.episodes()
    return Plan(recipe, make_learner(recipe, train.source.example_shape), train, validation, tests)


def settings(
    recipe: Recipe,
    split: Split,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int | None = None,
) -> tuple[Setting, ...]:
    """Loads a split of a recipe's data, and returns the settings in which it is used.

    Args:
        recipe: Recipe. The recipe.
        split: str. "train", "validation", "test" or "all", whose episodes are like the test's.
        data_dir: str or path. TensorFlow Datasets' directory. Defaults to None, its own default.
        seed: int. Seed of the episodes. Defaults to the recipe's.

    Returns:
        The split's own setting and, for tests, the further ones of the evaluation's `also`.

    Raises:
        ValueError: If there are no such data.
    """
    source = load_data(recipe, split, data_dir)
    is_test = split in ("test", "all")
    section = {"train": None, "validation": recipe.validation}.get(split, recipe.evaluation)
    # The training split is tested on as many episodes as the test split.
    n_episodes = (section or recipe.evaluation).n_episodes
    also = recipe.evaluation.also if is_test else ()

    def setting(changes: Mapping[str, Any]) -> Setting:
        sizes = type(recipe.episodes).model_fields
        options = recipe.episodes.model_dump(mode="json")
        for given in (section.given() if section else {}, changes):
            options |= {name: value for name, value in given.items() if name in sizes}
        return Setting(
            recipe,
            split,
            source,
            recipe.training.seed if seed is None else seed,
            options,
            changes.get("n_episodes") or n_episodes,
            changes.get("inner_steps", recipe.evaluation.inner_steps),
            changes.get("batch_norm"),
            changes,
        )

    return tuple(setting(changes) for changes in ({}, *(other.given() for other in also)))


def load_data(recipe: Recipe, split: Split, data_dir: str | os.PathLike[str] | None = None) -> Any:
    """Loads a split of a recipe's data.

    Args:
        recipe: Recipe. The recipe.
        split: str. "train", "validation", "test" or "all". Distributions of regression tasks have
            no splits: their settings differ in the seeds of the episodes.
        data_dir: str or path. TensorFlow Datasets' directory. Defaults to None, its own default.

    Returns:
        A `ClassDataset` or a `TaskDistribution`.

    Raises:
        ValueError: If there are no such data, or an option does not fit.
    """
    options = recipe.data.given()
    name = options.pop("name")
    if not recipe.is_regression:
        options["split"] = split
        if data_dir is not None and resolve(recipe.data.name).has_data_dir:
            options["data_dir"] = data_dir
    with naming("data"):
        if options.get("image_format") is not None:
            options["image_format"] = data.ImageFormat(**options["image_format"])
        return data.load(name, **options)


def make_learner(recipe: Recipe, example_shape: tuple[int, ...]) -> MetaLearner:
    """Makes a recipe's learner, compiled, with the initial weights of its seed.

    The global random state of Python, NumPy and TensorFlow is left as it was.

    Args:
        recipe: Recipe. The recipe.
        example_shape: tuple of int. Shape of one example.

    Returns:
        The learner.

    Raises:
        ValueError: If an option of the network, the learner or the optimizer does not fit.
    """
    n_way = recipe.episodes.n_way if not recipe.is_regression else 1
    n_outputs = max(n_way) if isinstance(n_way, tuple) else n_way
    learner_class = learners.get(recipe.learner.name)
    with _seeded(recipe.training.seed):
        with naming("network"):
            network = NETWORKS[recipe.network.name](
                # An encoder has no outputs for classes.
                None if learner_class.takes == "encoder" else n_outputs,
                input_shape=example_shape,
                **_options(recipe.network),
            )
        options = _options(recipe.learner)
        if recipe.is_regression and isinstance(recipe.learner, InnerSteps):
            options.setdefault("inner_loss", "mse")
        modules = (network, n_outputs) if isinstance(recipe.learner, ANIL) else (network,)
        with naming("learner"):
            learner = cast(Callable[..., MetaLearner], learner_class)(*modules, **options)
        with naming("training: optimizer"):
            # Copy it, because Keras changes the dictionary that it gets.
            optimizer = keras.optimizers.get(copy.deepcopy(recipe.training.optimizer))
    learner.compile(
        optimizer=optimizer,
        loss="mse" if recipe.is_regression else learner.default_loss(),
        # Weighted, so that padded queries do not count.
        weighted_metrics=[] if recipe.is_regression else ["accuracy"],
    )
    return learner


def _options(section: Any) -> dict[str, Any]:
    options: dict[str, Any] = copy.deepcopy(section.given())
    del options["name"]
    return options


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Makes Keras's initialisers start from a seed.

    Keras draws the seed of each initialiser that has none from Python's global generator, and from
    nothing else.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
