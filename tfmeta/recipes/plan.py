"""Builds the data, the episodes and the compiled learner of a recipe."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import keras

from tfmeta import data, learners
from tfmeta.data.names import resolve
from tfmeta.learners import MetaLearner
from tfmeta.recipes.data import Folder, Folders
from tfmeta.recipes.episode_options import episode_options
from tfmeta.recipes.learners import ANIL, InnerSteps, RelationNetwork
from tfmeta.recipes.network_makers import make_network
from tfmeta.recipes.networks import SavedNetwork
from tfmeta.recipes.options import Options
from tfmeta.recipes.schema import Recipe
from tfmeta.recipes.setting import Setting, Split, check_learner, naming
from tfmeta.recipes.sizes import check_sizes


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
        ValueError: If there are no such data, they have too few classes or examples, a class is in
            two splits, or an option of the network, the learner, the optimizer or the evaluation
            does not fit. The message names the recipe's file and the section.
    """
    with recipe.naming_file():
        return _prepared(recipe, data_dir)


def _prepared(recipe: Recipe, data_dir: str | os.PathLike[str] | None) -> Plan:
    if isinstance(recipe.data, Folder) and recipe.data.split is not None:
        raise ValueError(
            "data: with split: all there are no classes to train on. Leave it out, or give "
            "folders for train, validation and test."
        )
    (train,) = settings(recipe, "train", data_dir)
    (validation,) = settings(recipe, "validation", data_dir)
    tests = settings(recipe, "test", data_dir)
    _check_disjoint((train, validation, tests[0]))
    for setting in (train, validation, *tests):
        setting.episodes()
    learner = make_learner(recipe, train.source.example_shape)
    _check_rate(learner, make_callbacks(recipe))
    check_learner(learner, (validation, *tests))
    for setting in (train, validation, *tests):
        if setting.options.get("n_unlabelled") and not learner.takes_unlabelled:
            raise ValueError(
                f"episodes: a {type(learner).__name__} learns nothing from unlabelled examples: "
                "leave n_unlabelled out, or take meta_gan_maml or meta_gan_relation_network."
            )
    return Plan(recipe, learner, train, validation, tests)


def _check_rate(learner: MetaLearner, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Checks that a callback that lowers the outer learning rate can do so."""
    lowers = any(isinstance(c, keras.callbacks.ReduceLROnPlateau) for c in callbacks)
    if lowers and not isinstance(learner.optimizer.learning_rate, keras.Variable):
        raise ValueError(
            "training: callbacks: ReduceLROnPlateau needs an optimizer whose learning rate is a "
            "number; it follows a schedule."
        )


def _check_disjoint(settings: Sequence[Setting]) -> None:
    """Checks that the settings share no class and have examples of one shape."""
    splits_of: dict[str, str] = {}
    for setting in settings:
        for name in getattr(setting.source, "class_names", ()):
            if (split := splits_of.setdefault(name, setting.split)) != setting.split:
                raise ValueError(
                    f"data: the class {name!r} is in {split} and in {setting.split}, but a class "
                    "must be in one split only: remove or rename its folder in one of them."
                )


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

    def setting(*other: Options) -> Setting:
        sections = (section, *other) if section else ()
        options = episode_options(recipe.episodes, *sections)
        with naming("episodes"):
            check_sizes(options, source.example_shape)
        changes = other[0].given() if other else {}
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

    return (setting(), *map(setting, also))


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
    if isinstance(recipe.data, Folders):
        if split == "all":
            raise ValueError("data: of three folders, name one: train, validation or test.")
        folders = {name: options.pop(name) for name in ("train", "validation", "test")}
        name: str | Path = Path(folders[split])
        options["split"] = "all"
    else:
        name = options.pop("name")
        if not recipe.is_regression:
            options["split"] = options.get("split") or split
            if data_dir is not None and resolve(name).has_data_dir:
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
    policy = recipe.training.dtype_policy
    if isinstance(recipe.network, SavedNetwork) and policy != "float32":
        raise ValueError(
            f"training: dtype_policy {policy} is for a network that tfmeta makes; a saved network "
            "keeps the precision that it was saved with."
        )
    with _seeded(recipe.training.seed), _computing_in(policy):
        with naming("network"):
            network = make_network(
                recipe.network,
                # An encoder has no outputs for classes.
                None if learner_class.takes == "encoder" else n_outputs,
                example_shape,
            )
        options = _options(recipe.learner)
        if recipe.is_regression and isinstance(recipe.learner, InnerSteps):
            options.setdefault("inner_loss", "mse")
        if recipe.is_regression and isinstance(recipe.learner, RelationNetwork):
            options["n_targets"] = n_outputs
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


def make_callbacks(recipe: Recipe) -> list[keras.callbacks.Callback]:
    """Makes the callbacks of a recipe.

    Args:
        recipe: Recipe. The recipe.

    Raises:
        ValueError: If an option of a callback does not fit, or it watches what is not measured.
    """
    measured = ["loss", "val_loss"]
    measured += [] if recipe.is_regression else ["accuracy", "val_accuracy"]
    callbacks = []
    for i, given in enumerate(recipe.training.callbacks):
        given = {"class_name": given} if isinstance(given, str) else dict(given)
        name, config = given.pop("class_name"), given.pop("config", {})
        with naming(f"training: callbacks[{i}]: {name}"):
            if given:
                raise ValueError(f"a callback has class_name and config; got {sorted(given)}, too.")
            callback = getattr(keras.callbacks, name)(**config)
            monitor = getattr(callback, "monitor", None)
            if monitor is not None and monitor not in measured:
                raise ValueError(f"monitor must be one of {measured}; got {monitor!r}.")
            if getattr(callback, "restore_best_weights", False):
                raise ValueError(
                    "leave restore_best_weights out: a run keeps its best weights anyway."
                )
            callbacks.append(callback)
    return callbacks


def _options(section: Any) -> dict[str, Any]:
    options: dict[str, Any] = copy.deepcopy(section.given())
    del options["name"]
    return options


@contextlib.contextmanager
def _computing_in(policy: str) -> Iterator[None]:
    """Makes the layers that are made meanwhile compute in a precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


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
