"""Recipes: a YAML file that says how a learner is meta-trained and tested."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import keras
import yaml

from tfmeta import backbones, data, learners
from tfmeta.data import ClassDataset
from tfmeta.data.names import resolve
from tfmeta.learners import MetaLearner
from tfmeta.registry import hint

NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "conv4": backbones.conv4,
    "film_conv4": backbones.film_conv4,
    "linear": backbones.linear,
    "mlp": backbones.mlp,
    "relation_encoder": backbones.relation_encoder,
}

# Training, validation and test draw their episodes from seeds this far apart.
SEED_STRIDE = 1_000_000


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as the number that it is in YAML 1.2; PyYAML's YAML 1.1 takes it for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


@dataclasses.dataclass(frozen=True)
class Training:
    """How `fit` runs.

    Attributes:
        epochs: Number of epochs; after each one the learner is validated and saved.
        steps_per_epoch: Meta-batches per epoch.
        optimizer: A Keras optimizer: its name, or {class_name: …, config: {…}}.
        seed: Seed of the initialisation, and of the episodes.
    """

    epochs: int
    steps_per_epoch: int
    optimizer: Any
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a learner is meta-trained and tested.

    Attributes:
        name: What it is called.
        data: `name` and options of `tfmeta.data.load`.
        episodes: Options of `episodes(...)` for meta-training.
        network: `name` and options of a base network.
        learner: `name` and options of a learner.
        training: See `Training`.
        validation: Options of `episodes(...)` that differ, and `n_episodes`.
        evaluation: Likewise, and `inner_steps`, the most for which to measure; and `also`, a list
            of further settings, each with the options that differ, `batch_norm` among them.
        protocol: The test protocol in words.
    """

    name: str
    data: dict[str, Any]
    episodes: dict[str, Any]
    network: dict[str, Any]
    learner: dict[str, Any]
    training: Training
    validation: dict[str, Any]
    evaluation: dict[str, Any]
    protocol: str

    # === Reading ===

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Reads and checks a recipe.

        Args:
            path: A YAML file, or a folder with a `recipe.yaml`.

        Raises:
            ValueError: If there is no such file, it is no YAML, or a key is missing or unknown.
        """
        file = Path(path)
        if file.is_dir():
            file = file / "recipe.yaml"
        if not file.is_file():
            raise ValueError(f"No recipe at {path}: expected a YAML file or a folder with one.")
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is no valid YAML: {' '.join(str(error).split())}") from error
        try:
            return cls.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @classmethod
    def from_dict(cls, content: Any) -> Recipe:
        """The recipe of a dictionary like that of a YAML file; checked."""
        fields = [f.name for f in dataclasses.fields(cls)]
        _check_keys("the recipe", content, fields, required=fields)
        for section in ("data", "episodes", "network", "learner", "validation", "evaluation"):
            if not isinstance(content[section], Mapping):
                raise ValueError(f"{section} must be a mapping; got {content[section]!r}.")
        training = {f.name: f for f in dataclasses.fields(Training)}
        needed = [n for n, f in training.items() if f.default is dataclasses.MISSING]
        _check_keys("training", content["training"], training, required=needed)
        for key, minimum in (("epochs", 1), ("steps_per_epoch", 1), ("seed", 0)):
            _check_integer("training", content["training"], key, minimum)
        optimizer = content["training"]["optimizer"]
        is_mapping = isinstance(optimizer, Mapping) and "class_name" in optimizer
        if not isinstance(optimizer, str) and not is_mapping:
            raise ValueError(
                "training: optimizer must be a name or {class_name: …, config: {…}}; "
                f"got {optimizer!r}."
            )
        for key in ("name", "protocol"):
            _check_text("the recipe", content, key)
        recipe = cls(**{**content, "training": Training(**content["training"])})
        recipe._check_options()
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for YAML."""
        return dataclasses.asdict(self)

    def _check_options(self) -> None:
        _check_keys("data", self.data, [*self.data, "name"], required=["name"])
        _check_text("data", self.data, "name")
        source = resolve(self.data["name"])
        if source.kind == "tfds":
            # It may have been meant as a folder, which the check of the source knows.
            with _naming("data"):
                source.check_options(key for key in self.data if key != "name")
        _check_keys("data", self.data, ["name", *source.options])
        if "image_format" in self.data:
            of_format = _options(data.ImageFormat, without=[])
            given = self.data["image_format"]
            _check_keys("data: image_format", given, of_format, required=["height", "width"])
        distribution = data.TaskDistribution if source.is_regression else ClassDataset
        of_episodes = _options(distribution.episodes, without=["self", "seed", "start", "shard"])
        _check_keys("episodes", self.episodes, of_episodes)
        _check_keys("validation", self.validation, [*of_episodes, "n_episodes"], ["n_episodes"])
        keys = [*of_episodes, "n_episodes", "inner_steps"]
        _check_keys("evaluation", self.evaluation, [*keys, "also"], ["n_episodes"])
        also = self.evaluation.get("also", [])
        if not isinstance(also, list | tuple):
            raise ValueError(f"evaluation: also must be a list of mappings; got {also!r}.")
        for setting in also:
            _check_keys("evaluation: also", setting, [*keys, "batch_norm"])
            _check_integer("evaluation: also", setting, "n_episodes", 2)
            _check_integer("evaluation: also", setting, "inner_steps", 0)
        _check_integer("validation", self.validation, "n_episodes", 1)
        _check_integer("evaluation", self.evaluation, "n_episodes", 2)
        _check_integer("evaluation", self.evaluation, "inner_steps", 0)
        for section, known in (("network", NETWORKS), ("learner", learners.BY_NAME)):
            given = getattr(self, section)
            _check_keys(section, given, [*given, "name"], required=["name"])
            _check_text(section, given, "name")
            _check_keys(f"{section} name", {given["name"]: None}, known)
        of_network = _options(
            NETWORKS[self.network["name"]], without=["n_way", "n_outputs", "input_shape", "name"]
        )
        _check_keys("network", self.network, ["name", *of_network])
        given_apart = ["network", "encoder", "head", "relation_module", "kwargs"]
        of_learner = _options(learners.get(self.learner["name"]), without=given_apart)
        _check_keys("learner", self.learner, ["name", *of_learner])

    # === Building ===

    @property
    def is_regression(self) -> bool:
        """Whether the tasks are regression tasks."""
        return resolve(self.data["name"]).is_regression

    def load_data(self, split: str, data_dir: str | os.PathLike[str] | None = None) -> Any:
        """The recipe's data. Task distributions have no splits, but other seeds: see `episodes`.

        Args:
            split: "train", "validation" or "test".
            data_dir: TensorFlow Datasets' directory.

        Raises:
            ValueError: If there are no such data, or an option does not fit.
        """
        options = {k: v for k, v in self.data.items() if k != "name"}
        if not self.is_regression:
            options["split"] = split
        if data_dir is not None and resolve(self.data["name"]).has_data_dir:
            options["data_dir"] = data_dir
        with _naming("data"):
            if "image_format" in options:
                options["image_format"] = data.ImageFormat(**options["image_format"])
            return data.load(self.data["name"], **options)

    def make_episodes(
        self,
        source: Any,
        split: str,
        start: int = 0,
        seed: int | None = None,
        setting: Mapping[str, Any] | None = None,
    ) -> Any:
        """The meta-batches of a split.

        Args:
            source: What `load_data` returned for it.
            split: "train", "validation" or "test".
            start: Index of the first episode.
            seed: Instead of the recipe's.
            setting: Options that differ, as in the evaluation's `also`.
        """
        role = ("train", "validation", "test").index(split)
        seed = self.training.seed if seed is None else seed
        return source.episodes(
            **self.episode_options(split, setting or {}),
            seed=seed + role * SEED_STRIDE,
            start=start,
        )

    def episode_options(self, split: str, setting: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the episodes of a split, in a setting with those that differ."""
        section = {"train": {}, "validation": self.validation, "test": self.evaluation}[split]
        others = ("n_episodes", "inner_steps", "also", "batch_norm")
        given = {**self.episodes, **section, **setting}
        return {k: v for k, v in given.items() if k not in others}

    def largest_n_way(self, split: str, setting: Mapping[str, Any]) -> int:
        """The most classes that an episode of a split has, in a setting with those that differ."""
        options = self.episode_options(split, setting)
        n_way = options.get("n_way", _default(ClassDataset.episodes, "n_way"))
        return max(n_way) if isinstance(n_way, list | tuple) else n_way

    def settings(self, split: str) -> list[dict[str, Any]]:
        """In which settings to measure on a split: the recipe's own, `{}`, and, on test, `also`."""
        return [{}, *(self.evaluation.get("also", []) if split == "test" else [])]

    def make_learner(self, example_shape: tuple[int, ...]) -> MetaLearner:
        """The learner, compiled; seeded by the recipe.

        Args:
            example_shape: Shape of one example.

        Raises:
            ValueError: If an option of the network, the learner or the optimizer does not fit.
        """
        keras.utils.set_random_seed(self.training.seed)
        options = {k: v for k, v in self.network.items() if k != "name"}
        n_outputs = 1 if self.is_regression else self.largest_n_way("train", {})
        learner_class = learners.get(self.learner["name"])
        taken = inspect.signature(learner_class).parameters
        with _naming("network"):
            make_network = NETWORKS[self.network["name"]]
            for name in ("n_way", "n_outputs"):
                if name in inspect.signature(make_network).parameters:
                    # An encoder ends in features.
                    options[name] = None if "encoder" in taken else n_outputs
            network = make_network(input_shape=example_shape, **options)
        options = {k: v for k, v in self.learner.items() if k != "name"}
        if "head" in taken:
            options["head"] = n_outputs
        if self.is_regression and "inner_loss" in taken:
            options.setdefault("inner_loss", "mse")
        with _naming("learner"):
            learner = cast(Callable[..., MetaLearner], learner_class)(network, **options)
        with _naming("training: optimizer"):
            # Keras writes into what it is given.
            optimizer = keras.optimizers.get(copy.deepcopy(self.training.optimizer))
        learner.compile(
            optimizer=optimizer,
            loss="mse" if self.is_regression else learner.default_loss(),
            metrics=[] if self.is_regression else ["accuracy"],
        )
        return learner


def _options(function: Callable[..., Any], without: Collection[str]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in without]


def _default(function: Callable[..., Any], option: str) -> Any:
    return inspect.signature(function).parameters[option].default


def _check_keys(
    where: str, given: Any, known: Collection[str], required: Collection[str] = ()
) -> None:
    """Raises a ValueError for unknown keys, naming the nearest right ones, and for missing ones."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a mapping; got {given!r}.")
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; {hint(key, known)}")
    missing = [key for key in required if key not in given]
    if missing:
        raise ValueError(f"{where}: missing {missing}.")


def _check_integer(where: str, given: Mapping[str, Any], key: str, minimum: int) -> None:
    value = given.get(key, minimum)
    if type(value) is not int or value < minimum:
        bound = "> 0" if minimum == 1 else f"≥ {minimum}"
        raise ValueError(f"{where}: {key} must be an integer {bound}; got {value!r}.")


def _check_text(where: str, given: Mapping[str, Any], key: str) -> None:
    if not isinstance(given[key], str):
        raise ValueError(f"{where}: {key} must be text; got {given[key]!r}.")


@contextlib.contextmanager
def _naming(section: str) -> Iterator[None]:
    """Says in which section the value is that was refused, also where only Python did so."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{section}: {error}") from error
